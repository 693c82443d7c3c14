"""Ctrl-C in every stage at random moments: each ends in ten seconds with one line, and the next `dvc repro` completes.

    python -m benchmarks.interruptions --moments 3
    python -m benchmarks.interruptions --stages encode train evaluate --signal TERM

A small project runs every stage once. Then each stage is started again without its outputs, and the signal goes to its
process group, as from a terminal, at moments drawn from `--seed`; at last to `dvc repro`'s. Prints a row for each stage
and exits with 1 when a stage took longer than ten seconds, had another exit code or other lines, or left a process.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.small_project import SmallProject, make_small_project

LIMIT_S = 10.0
STAGES = ("acquire", "filter", "backbone", "curate", "encode", "train", "bench", "evaluate", "register")
CLEARED = {  # what a stage would otherwise find done
    "acquire": ("data/raw", "data/world-bucket"),
    "encode": ("data/latents",),
    "train": ("models/checkpoints",),
    "evaluate": ("reports/evaluation", ".pbe/reference-corrected.safetensors"),
    "register": ("mlflow.db", "mlruns"),
}
BEFORE = re.compile(r"^\w+: [\w ]+ \d+/\d+ \(| INFO mlflow")  # lines of progress, and of a new MLflow database


@dataclass
class Row:
    """What the interruptions of one stage did."""

    stage: str
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def main() -> None:
    """Interrupt the stages, and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--moments", type=int, default=3, help="interruptions of each stage (default: %(default)s)")
    parser.add_argument("--signal", choices=("INT", "TERM"), default="INT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", type=Path, help="a folder that keeps the small project for the next call")
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.project or Path(scratch) / "project"
        project = SmallProject(folder) if (folder / "dvc.lock").exists() else make_small_project(folder)
        project.run("dvc", "repro")
        rng = random.Random(options.seed)
        rows = [interrupt_stage(project, stage, number, options.moments, rng) for stage in options.stages]
    print("| stage | longest, s | faults |\n| --- | ---: | --- |")
    for row in rows:
        longest = f"{max(row.seconds):.1f}" if row.seconds else "never caught"
        print(f"| {row.stage} | {longest} | {'; '.join(row.faults) or 'none'} |")
    sys.exit(any(row.faults or not row.seconds for row in rows))


def interrupt_stage(project: SmallProject, stage: str, number: signal.Signals, moments: int, rng: random.Random) -> Row:
    """Interrupt a stage at several moments, then `dvc repro` once, and let `dvc repro` complete."""
    row, command = Row(stage), ("python", "-m", f"flows.{stage}")
    whole_s = time_stage(project, stage, command)
    while len(row.seconds) < moments and whole_s > 0.5:
        clear(project, stage)
        if not interrupt(project, command, rng.uniform(0.0, whole_s), number, row, 128 + number):
            whole_s *= 0.8  # it had ended before
    clear(project, stage)
    interrupt(project, ("dvc", "repro", "--force", "--single-item", stage), rng.uniform(1.0, whole_s), number, row, 255)
    ended = project.run("dvc", "repro", "--single-item", stage, check=False)
    if ended.returncode:
        row.faults.append(f"the next dvc repro exited with {ended.returncode}: {ended.stderr[-300:]}")
    print(f"{stage}: {', '.join(f'{each:.1f}' for each in row.seconds)} s; {row.faults or 'no faults'}", flush=True)
    return row


def time_stage(project: SmallProject, stage: str, command: tuple[str, ...]) -> float:
    clear(project, stage)
    began = time.monotonic()
    project.run(*command)
    return time.monotonic() - began


def clear(project: SmallProject, stage: str) -> None:
    for name in CLEARED.get(stage, ()):
        path = project.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def interrupt(
    project: SmallProject, command: tuple[str, ...], after_s: float, number: signal.Signals, row: Row, code: int
) -> bool:
    """Send the signal to the command's group after some seconds; return False when it had ended by then."""
    process = project.start(*command)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        pass
    else:
        process.communicate()
        return False
    began = time.monotonic()
    os.killpg(process.pid, number)
    errors = process.communicate()[1]
    while project.processes() and time.monotonic() - began < 60:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    if process.returncode == 0:
        return False
    row.seconds.append(seconds)
    row.faults += faults(project, command, after_s, seconds, process.returncode, code, errors)
    return True


def faults(
    project: SmallProject, command: tuple[str, ...], after_s: float, seconds: float, found: int, code: int, errors: str
) -> list[str]:
    """Return what was wrong with the end of an interrupted command."""
    at = f"{command[0]} after {after_s:.1f} s"
    wrong = [f"{at}: {seconds:.1f} s"] if seconds > LIMIT_S else []
    if found != code:
        wrong.append(f"{at}: exit code {found}")
    if project.processes():
        wrong.append(f"{at}: still running: {project.processes()}")
    lines = [line for line in errors.splitlines() if line.strip() and not BEFORE.search(line)]
    if command[0] == "python" and (len(lines) != 1 or not lines[0].startswith("error: ")):
        wrong.append(f"{at}: lines: {lines}")
    return wrong


if __name__ == "__main__":
    main()
