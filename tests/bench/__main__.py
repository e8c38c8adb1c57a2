"""Print tables for docs/performance.md. Ratios hold on a busy machine, absolute figures only on a quiet one."""

import argparse
import os
import tempfile
from pathlib import Path

from tests.bench import ingest, last_slice, pages, retention, send, stow

MEASUREMENTS = {
    "ingest": ingest.run,
    "send": send.run,
    "last-slice": last_slice.run,
    "stow": stow.run,
    "pages": pages.run,
    "retention": retention.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["all", *MEASUREMENTS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; it is left as it was")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the measurement", flush=True)
    for name, run in MEASUREMENTS.items():
        if chosen.what in ("all", name):
            with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.folder) as folder:
                run(Path(folder), chosen.rounds, lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
