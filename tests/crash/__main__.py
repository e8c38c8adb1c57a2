"""`make test-crash`: hundreds of kills under load, over both shapes; prints the table, exits 1 where it is wrong."""

import argparse
import logging
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.crash.audit import places, table
from tests.crash.run import Plan, run
from tests.crash.stage import SHAPES

EVERYWHERE = 500  # kills; with so many, some must have been at each place


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="at least so many, the same in each shape")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no more kills are asked for")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the kills")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this one; else both")
    parser.add_argument("--keep", type=Path, help="a new folder where everything is left, logs and spools too")
    given = parser.parse_args()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # scanners see associations break all the time
    with tempfile.TemporaryDirectory(prefix="perfusion-crash-") as temporary:
        shapes = given.shape or SHAPES
        plan = Plan(-(-given.kills // len(shapes)), given.minutes, seed=given.seed, shapes=shapes)
        audits = run(plan, given.keep or Path(temporary), say)
    wrong = [words for audit in audits for words in audit.wrong]
    total = sum(len(audit.kills) for audit in audits)
    if total < given.kills:
        wrong.append(f"{total} kills, {given.kills} were wanted")
    if given.kills >= EVERYWHERE:
        died = {(kill.role, kill.where) for audit in audits for kill in audit.kills}
        wrong += [f"nobody died at {where}" for role, where in places(audits) if (role, where) not in died]
    print("\n".join(table(audits)))
    print("\n".join(f"WRONG: {words}" for words in wrong) or "Nothing acknowledged is lost, nothing is doubled.")
    return 1 if wrong else 0


def say(words: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
