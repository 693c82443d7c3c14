"""Chaos: disturb every stage at random moments, and check that `dvc repro` then completes with the same bits.

    python -m benchmarks.chaos --seed 1 2 3 --minutes 30
    python -m benchmarks.chaos --stages train evaluate --kinds KILL --project DIR

A small project runs undisturbed once. Each case copies it, lets one stage run again, and disturbs it: SIGKILL, SIGINT
or SIGTERM of any of its processes, a full disk, a read-only folder, a jump of the clock, a lost MongoDB, Prefect
server, MLflow or S3 endpoint. Then `dvc repro` must complete without help, every output must have the bits of the
undisturbed run, and no process may be left. Prints a line for each case, and exits with 1 when one did not end so.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.cases import FAULTS, PIPELINE, SIGNALS, Case, draw_cases
from benchmarks.chaos.rooms import Room
from benchmarks.chaos.suite import run_case
from benchmarks.chaos.table import PAGE, Row, summary, write_rows
from benchmarks.interruptions import STAGES


def main() -> None:
    """Run the cases of each seed, print their rows, and write the table on request."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a file system that a case has mounted is unmounted
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        room = Room(options.project or Path(scratch))
        room.prepare()
        for number, seed in enumerate(options.seed, 1):
            until = began + 60 * options.minutes * number / len(options.seed)
            cases = draw_cases(seed, options.stages, options.kinds)
            found = run_until(room, cases, seed, until)
            print(f"seed {seed}: {summary(found)}; {len(found)} of {len(cases)} cases were run", flush=True)
            rows += [(seed, row) for row in found]
    if options.write:
        write_rows(PAGE, rows)
    sys.exit(any(row.faults for _, row in rows))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, nargs="+", default=[0], help="of order, moments and victims (default: 0)")
    made.add_argument(
        "--minutes", type=float, default=50.0, help="of all seeds; then no case starts (default: %(default)s)"
    )
    made.add_argument("--stages", nargs="+", choices=(*STAGES, PIPELINE), default=(), help="default: all")
    made.add_argument("--kinds", nargs="+", choices=(*SIGNALS, *FAULTS), default=(), help="default: all")
    made.add_argument("--project", type=Path, help="a folder that keeps the undisturbed run for the next call")
    made.add_argument("--write", action="store_true", help=f"write these seeds' rows to docs/{PAGE.name}")
    return made


def run_until(room: Room, cases: Sequence[Case], seed: int, until: float) -> list[Row]:
    """Run the cases until the time is over, print each, and return the rows."""
    rows: list[Row] = []
    for case in cases:
        if time.monotonic() > until:
            break
        rows.append(run_case(room, case, seed))
        print(f"{'ok' if not rows[-1].faults else 'FAILED'}: {' | '.join(rows[-1].cells())}", flush=True)
    return rows


if __name__ == "__main__":
    main()
