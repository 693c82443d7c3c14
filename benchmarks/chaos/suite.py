"""Runs a case: disturbs a stage, runs `dvc repro`, and compares the outputs with those of the undisturbed run."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from benchmarks.chaos.cases import PIPELINE, Case, forgotten
from benchmarks.chaos.rooms import PIPELINE as PIPELINE_COMMAND
from benchmarks.chaos.rooms import REPRO, Ended, Room, can_mount
from benchmarks.chaos.table import NOT_POSSIBLE, Row
from benchmarks.chaos.troubles import NotPossibleError, Trouble, trouble_of
from benchmarks.small_project import ROOT

LIMIT_S = 420.0  # of a command; a stage that hangs is a fault
LEFT_S = 30.0  # until every process has ended
FAULTS = "faults.log"  # beside the undisturbed run: what the commands with faults printed
SMALL_DISK, CLUSTER = "full disk", "training on a cluster"
EARLIER = (1.0, 0.6, 0.3, 0.1, 0.0)  # shares of the moment that are tried, when the stage had ended before it


def run_case(room: Room, case: Case, seed: int) -> Row:
    """Return what a case did; tries an earlier moment when the stage had ended before the drawn one."""
    if case.kind == CLUSTER:
        return train_on_a_cluster(seed)
    if case.kind == SMALL_DISK and not can_mount(room.pristine.parent / "mounted"):
        return Row(title_of(case), happened=NOT_POSSIBLE)
    moment_s = case.part * sum(room.seconds[stage] for stage in forgotten(case))
    try:
        for share in EARLIER:
            if (row := disturb(room, case, share * moment_s)) is not None:
                return row
    except NotPossibleError:
        return Row(title_of(case), happened=NOT_POSSIBLE)
    return Row(title_of(case), faults=["never struck: what it hits did not run"])


def disturb(room: Room, case: Case, moment_s: float) -> Row | None:
    """Return what a case did when it struck after some seconds; None when there was nothing to strike any more."""
    command = PIPELINE_COMMAND if case.stage == PIPELINE else REPRO
    row = Row(title_of(case), f"{moment_s:.1f} s")
    with room.opened(forgotten(case), case.kind == SMALL_DISK), trouble_of(room, case) as trouble:
        process = room.start(command, **trouble.variables)
        if trouble.strike is None:
            row.moment = "from the start"
        elif struck := strike(process, moment_s, trouble.strike):
            row.happened = f"{struck}; "
        else:
            return None
        began = time.monotonic()
        first = room.end(process, LIMIT_S)
        row.happened += describe(first)
        row.faults += faults_of(first, trouble)
        if row.faults:
            with (room.pristine.parent / FAULTS).open("a") as log:
                log.write(f"== {row.case}\n{first.output}\n")
        if not case.at_once:
            room.wait_until_gone(LEFT_S)
        trouble.lift()
        again = room.end(room.start(REPRO, **trouble.later), LIMIT_S)
        row.seconds = time.monotonic() - began
        if again.code:
            row.faults.append(f"dvc repro exited with {again.code}: {again.last_line()}")
        check_room(room, row)
    return row


def strike(process: "subprocess.Popen[bytes]", moment_s: float, how: Callable[[], str | None]) -> str | None:
    """Strike at the moment, and return what was hit; None, with the command ended, when nothing was there any more."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment_s)
    struck = how() if process.poll() is None else None
    if struck is None:
        process.kill()
        process.wait()
    return struck


def check_room(room: Room, row: Row) -> None:
    """Note which processes are left, and which outputs differ from those of the undisturbed run."""
    row.left = room.wait_until_gone(LEFT_S)
    row.faults += [f"still running: {name}" for name in row.left]
    different = room.differences()
    row.same_bits = not different
    if different:
        row.faults.append(f"{len(different)} differ: {', '.join(different[:3])}")


def title_of(case: Case) -> str:
    """Return a case's name in the table: the stage, and what happens to it."""
    hasty = ", dvc repro at once" if case.at_once else ""
    return f"{case.stage}: {case.name}{hasty}"


def describe(ended: Ended) -> str:
    """Return how the disturbed command ended."""
    line = ended.last_line()
    return "completed" if ended.code == 0 else f"exit code {ended.code}" + (f": {line}" if line else "")


def faults_of(ended: Ended, trouble: Trouble) -> list[str]:
    """Return what was wrong with the end of a disturbed command."""
    if ended.code == 124:
        return [f"ran longer than {LIMIT_S:.0f} s"]
    return ["a traceback"] if trouble.one_line and ended.code and ended.has_traceback() else []


def train_on_a_cluster(seed: int) -> Row:
    """Kill workers, nodes, the driver or everything of a training on a simulated cluster: benchmarks.chaos.training."""
    command = [sys.executable, "-m", "benchmarks.chaos.training", "--runs", "1", "--first", str(seed), "--steps", "30"]
    began = time.monotonic()
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * LIMIT_S)
    except subprocess.TimeoutExpired:
        return Row(CLUSTER, faults=[f"ran longer than {2 * LIMIT_S:.0f} s"])
    rows = [line.split("|") for line in ended.stdout.splitlines() if line.startswith(f"| {seed} |")]
    killed, seconds = (rows[0][2].strip(), float(rows[0][3])) if rows else ("", time.monotonic() - began)
    row = Row(CLUSTER, "at random steps", f"{killed} killed", seconds, ended.returncode == 0)
    if ended.returncode:
        row.faults.append(f"exit code {ended.returncode}: {(ended.stderr or ended.stdout)[-200:]}")
    return row
