"""What is left after the kills, compared with what each side was told, and the table of it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select

from dicomnode import header
from dicomnode.bookkeeping.tables import Instance, Job, Result
from dicomnode.crashpoints import POINTS
from dicomnode.jobs import Lane, State
from dicomnode.recovery import recover
from dicomnode.spool import Spool
from inference.maps import KINDS
from tests.crash import pacs
from tests.crash.matrix import ROLES, Kill, Matrix
from tests.crash.senders import SLICES
from tests.crash.stage import Stage
from tests.walks.node import wait_for

COLUMNS = (
    "shape", "kills", "acknowledged", "stored", "lost", "heads", "DONE", "results", "at the PACS", "doubled",
    "sent again", "recovered",
)  # fmt: skip
# What a role does that nobody else can do: that it was done after a kill shows that the role is back.
WORK = {"sweep": ("job", "QUEUED"), "worker": ("job", "SENDING"), "sender": ("job", "DONE"), "whole": ("job", "DONE")}
SETTLED = 60.0  # seconds until each process that was killed runs again


@dataclass
class Audit:
    """The figures of one shape; wrong: in words, whatever is not as it must be."""

    shape: str
    kills: list[Kill]
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    heads: int = 0
    done: int = 0
    results: int = 0
    at_pacs: int = 0
    doubled: int = 0
    again: int = 0
    recovered: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def row(self) -> tuple[str, ...]:
        figures = (self.acknowledged, self.stored, self.lost, self.heads, self.done, self.results, self.at_pacs)
        return (self.shape, *map(str, (len(self.kills), *figures, self.doubled, self.again, self.recovered)))

    def must(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong where this does not hold."""
        if not holds:
            self.wrong.append(f"{self.shape}: {otherwise}")


def live(stage: Stage, matrix: Matrix) -> Audit:
    """What can only be said while the node still runs."""
    found = Audit(stage.shape, matrix.kills)
    for error in matrix.errors:
        found.must(False, f"the kills ended early: {error!r}")
    for job_id, state, attempts in stage.unfinished():
        found.must(False, f"job {job_id} is still {state} after {attempts} attempts")
    for scanner in stage.scanners:
        found.must(not scanner.asked, f"{scanner.name} waits for {len(scanner.asked)} commitment reports")
        found.must(not scanner.ledger.denied, f"commitment denied to {scanner.name}: {scanner.ledger.denied}")
        found.wrong += scanner.problems
    found.recovered = sum(each.at < evidence(stage, each.role) for each in matrix.kills)
    found.must(found.recovered == len(matrix.kills), "not every killed role has worked again")
    expected = {"dicomnode up": 1, "dicomnode listen": 1 + stage.settings.listen.processes, "dicomnode sweep": 1}
    for words, wanted in {**expected, "dicomnode work": 3 * 2}.items():
        running = _settled(stage, words, wanted)
        found.must(running == wanted, f"{running} processes of {words!r} are running, {wanted} should")
    return found


def _settled(stage: Stage, words: str, wanted: int) -> int:
    """How many processes run, once what died last has been started again."""
    with suppress(AssertionError):
        wait_for(lambda: len(stage.node.processes(words)) == wanted, words, SETTLED)
    return len(stage.node.processes(words))


def evidence(stage: Stage, role: str) -> datetime:
    """When the role last did its work."""
    if role in WORK:
        return stage.last(*WORK[role])
    moments = [scanner.ledger.last_at for scanner in stage.scanners if scanner.ledger.last_at]
    return max(moments, default=datetime.min.replace(tzinfo=UTC))


def at_rest(found: Audit, stage: Stage) -> Audit:
    """Books, spool and PACS against the ledgers, once the node has been stopped."""
    spool = Spool(stage.settings.node.data_dir)
    recover(stage.books, spool, Lane.ROUTINE, datetime.now(UTC))  # what the next start would do
    _compare_instances(found, stage, spool)
    _compare_results(found, stage, spool)
    return found


def _compare_instances(found: Audit, stage: Stage, spool: Spool) -> None:
    kept = {pair for scanner in stage.scanners for pair in scanner.ledger.kept.items()}
    with stage.books() as session:
        rows = session.execute(select(Instance.sop_instance_uid, Instance.sha256, Instance.path)).all()
    stored = {(uid, digest) for uid, digest, path in rows if header.of_path(spool.path(path)).sha256 == digest}
    found.acknowledged, found.stored, found.lost = len(kept), len(kept & stored), len(kept - stored)
    found.must(not found.lost, f"acknowledged and not stored: {sorted(kept - stored)[:5]}")
    found.must(len(rows) == len(kept), f"{len(rows)} instances in the books, {len(kept)} were sent")
    found.must(set(spool.received()) == {path for *_, path in rows}, "files without a row, or rows without a file")


def _compare_results(found: Audit, stage: Stage, spool: Spool) -> None:
    heads = {uid for scanner in stage.scanners for uid in scanner.ledger.heads}
    with stage.books() as session:
        jobs = session.execute(select(Job.study, Job.state, Job.reason)).all()
        results = {
            (uid, header.of_path(spool.path(path)).sha256)
            for uid, path in session.execute(select(Result.sop_instance_uid, Result.path))
        }
    found.heads, found.results = len(heads), len(results)
    found.done = sum(state == State.DONE for _, state, _ in jobs)
    for study, state, reason in jobs:
        found.must(state == State.DONE, f"the job of study {study} is {state}: {reason}")
    found.must(Counter(study for study, *_ in jobs) == Counter(heads), "not one job for each head")
    taken = pacs.read(stage.taken_by_pacs)
    versions = defaultdict(set)
    for each in taken:
        versions[each.study_instance_uid, each.thing].add((each.sop_instance_uid, each.sha256))
    held = {version for of_thing in versions.values() for version in of_thing}
    found.at_pacs, found.again = len(held), len(taken) - len(held)
    found.doubled = sum(len(of_thing) - 1 for of_thing in versions.values())
    found.must(not found.doubled, f"{found.doubled} things at the PACS under two UIDs or with two contents")
    found.must(held == results, f"{len(results - held)} results are not at the PACS, {len(held - results)} are unknown")
    expected = len(heads) * (len(KINDS) * SLICES + len(KINDS))
    found.must(len(versions) == expected, f"{len(versions)} things at the PACS, {expected} expected")


def table(audits: Sequence[Audit]) -> Iterator[str]:
    """The result, for people: one row for each shape, then how often each place was killed."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|" + "---:|" * (len(COLUMNS) - 1)
    for audit in audits:
        yield f"| {' | '.join(audit.row)} |"
    yield ""
    yield f"| role | killed at | {' | '.join(audit.shape for audit in audits)} |"
    yield "|---|---|" + "---:|" * len(audits)
    counts = [Counter((kill.role, kill.where) for kill in audit.kills) for audit in audits]
    for place in places(audits):
        yield f"| {' | '.join(place)} | {' | '.join(str(count[place]) for count in counts)} |"


IDLE = "process.foreseen"  # passed by a worker that has nothing to do; tests/dicomnode/test_workers.py kills one there


def places(audits: Sequence[Audit]) -> list[tuple[str, str]]:
    """(role, place) of everything that can die, and of what died."""
    role_of = {prefix: role for role, prefixes in ROLES.items() for prefix in prefixes} | {"recover": "receiver"}
    points = [(role_of[role], name) for name in POINTS if (role := name.split(".")[0]) in role_of and name != IDLE]
    whole = sorted({(kill.role, kill.where) for audit in audits for kill in audit.kills if kill.role == "whole"})
    return points + whole
