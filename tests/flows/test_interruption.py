"""Ctrl-C and SIGTERM: a stage and the pipeline end soon with one line, and leave nothing running.

`benchmarks/interruptions.py` measures the seconds.
"""

import os
import signal
import subprocess
from pathlib import Path
from time import monotonic

import psutil
import pytest

from flows.services.processes import environment_of
from tests.flows.test_pipeline import PIPELINE, runs
from tests.support.toy_project import Project, wait_for

STAGE = ("python", "toy.py", "acquire")
HANGING = """
import sys, time
from flows.interruption import handle_signals
with handle_signals():
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        time.sleep(600)
"""


def start_group(project: Project, *command: str) -> subprocess.Popen[str]:
    """Start a command as the leader of a process group, which Ctrl-C on a terminal signals."""
    pipe = subprocess.PIPE
    project.env["PBE_TEST_MARK"] = str(project.folder)
    return subprocess.Popen(
        command, cwd=project.folder, env=project.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def holds_lock(project: Project) -> bool:
    holder = project.folder / ".pbe/acquire.pid"
    return holder.exists() and holder.read_text() != ""


def marked(project: Project) -> list[int]:
    """Return the processes that have inherited the environment of `start_group`."""
    folder = str(project.folder)
    return [each.pid for each in psutil.process_iter() if environment_of(each).get("PBE_TEST_MARK") == folder]


FINISHED = """
import time
from flows.stage import errors_reported
with errors_reported("acquire"):
    pass
print("ready", flush=True)
time.sleep(1)
"""
PREPARING = """
import signal, time
from pbe.evaluation.painting import processes
processes.prepare()
signal.signal(signal.SIGINT, lambda number, frame: None)
time.sleep(1.5)  # until the fork server imports
print("ready", flush=True)
time.sleep(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number", "code", "line"),
    [
        (STAGE, signal.SIGINT, 130, "error: acquire was interrupted; the next run continues from here"),
        (STAGE, signal.SIGTERM, 143, "error: acquire was interrupted; the next run continues from here"),
        pytest.param(
            (*PIPELINE, "acquire"),
            signal.SIGINT,
            130,
            "error: stage acquire was interrupted; the next run continues from here",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_signal_ends_a_stage_and_its_server(
    lone_project: Project, command: tuple[str, ...], number: int, code: int, line: str
) -> None:
    lone_project.naps(600)
    process = start_group(lone_project, *command)
    assert wait_for(lambda: holds_lock(lone_project), within_s=120)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.splitlines()[-1:]) == (code, [line])
    assert sum(each.startswith("acquire: naps") for each in errors.splitlines()) == len(errors.splitlines()) - 1
    assert wait_for(lambda: not marked(lone_project), within_s=30)


@pytest.mark.slow
def test_an_interrupted_stage_is_cancelled_and_the_next_run_completes(project: Project) -> None:
    project.naps(600)
    process = start_group(project, *PIPELINE, "acquire")
    assert wait_for(lambda: holds_lock(project), within_s=60)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert {name: run["state_type"] for name, run in runs(project).items() if name in ("pipeline", "acquire")} == {
        "pipeline": "CANCELLED",
        "acquire": "CANCELLED",
    }
    project.naps(1)
    assert project.run(*PIPELINE, "acquire").returncode == 0


def test_a_process_that_hangs_while_it_closes_ends_all_the_same(lone_project: Project) -> None:
    process = start_group(lone_project, "python", "-c", HANGING)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert monotonic() - began < 10


def test_ctrl_c_after_a_stage_has_finished_changes_nothing(lone_project: Project) -> None:
    process = start_group(lone_project, "python", "-c", FINISHED)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_ctrl_c_while_the_models_code_is_loaded_prints_nothing(lone_project: Project) -> None:
    process = start_group(lone_project, "python", "-c", PREPARING)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate() == ("", "")


def test_ctrl_c_while_a_stage_is_imported_is_one_line(lone_project: Project) -> None:
    process = start_group(lone_project, "python", "-m", "flows.filter")
    assert wait_for(lambda: b"pydantic_core" in Path(f"/proc/{process.pid}/maps").read_bytes(), within_s=30)
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "error: interrupted\n")
    assert process.returncode == 130


def test_a_second_signal_ends_a_process_immediately(lone_project: Project) -> None:
    process = start_group(lone_project, "python", "-c", HANGING)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    began = monotonic()
    assert wait_for(lambda: process.send_signal(signal.SIGINT) or process.poll() is not None, within_s=3)
    assert monotonic() - began < 3
