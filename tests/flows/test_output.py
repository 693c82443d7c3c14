"""What a stage prints reaches the terminal and the log of its run."""

import os
import subprocess
import sys

import pytest

from flows.output import copied_output
from flows.reproduction import stage_environment

LOGGING = """
import logging, os
from flows.output import copied_output
log = logging.getLogger("prefect.task_runs")
logging.basicConfig(level=logging.INFO, format="%(message)s")  # as Prefect does in the runs of a worker
with copied_output(log.info):
    os.write(2, b"once\\n")
log.info("afterwards")
"""
PRINTING = r"import sys; print('1 %\r50 %\r100 %\r\nerror: x: no such file', file=sys.stderr)"


def test_the_lines_of_a_process_are_passed_on_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    print("before", flush=True)
    with copied_output(lines.append) as last:
        os.write(1, b"here\n")  # pytest's own sys.stdout does not write to 1
        subprocess.run([sys.executable, "-c", PRINTING], check=True)
    print("after", flush=True)
    assert sorted(lines) == ["100 %", "error: x: no such file", "here"]
    assert last.text in ("error: x: no such file", "here")  # two streams have no order
    shown = capfd.readouterr()
    assert shown.out == "before\nhere\nafter\n"
    assert shown.err == "1 %\r50 %\r100 %\r\nerror: x: no such file\n"


def test_a_process_that_outlives_the_block_does_not_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.output._CLOSE_S", 0.1)
    with copied_output(lambda line: None):
        process = subprocess.Popen(["sleep", "60"])
    process.kill()
    process.wait()


def test_a_stages_command_finds_this_interpreter_whatever_path_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    with stage_environment(PBE_REASON="train.steps"):
        found = subprocess.run("command -v python; echo $PBE_REASON", shell=True, capture_output=True, text=True)
    assert found.stdout == f"{sys.prefix}/bin/python\ntrain.steps\n"

    assert (os.environ["PATH"], "PBE_REASON" in os.environ) == ("/bin:/usr/bin", False)


def test_a_line_that_is_logged_to_the_terminal_does_not_come_back() -> None:
    ended = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "once\nafterwards\n")
