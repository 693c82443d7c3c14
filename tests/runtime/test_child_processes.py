"""Child processes end with their parent, with processes and signals of the operating system."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pbe.runtime.child_processes import kill_child, start_child
from tests.support.toy_project import ROOT, running, wait_for

GRACEFUL = """
import os, time
from pbe.runtime.child_processes import exit_with_parent
exit_with_parent(grace_s=1.0)
open("pid", "w").write(str(os.getpid()))
try:
    time.sleep(600)
finally:
    open("cleaned-up", "w")
"""
STUBBORN = GRACEFUL.replace("time.sleep(600)", "__import__('ctypes').CDLL(None).sigsuspend(bytes([0xff] * 128))")
WITHOUT_GRACE = GRACEFUL.replace("grace_s=1.0", "")


def orphan(folder: Path, code: str) -> int:
    """Start a process, kill its parent with SIGKILL, and return the process's id."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=folder, env=env)
    path = folder / "pid"
    assert wait_for(lambda: path.exists() and path.read_text() != "")
    pid = int(path.read_text())
    assert running(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return pid


@pytest.mark.parametrize(("code", "cleans_up"), [(GRACEFUL, True), (STUBBORN, False), (WITHOUT_GRACE, False)])
def test_a_process_ends_with_its_parent(tmp_path: Path, code: str, cleans_up: bool) -> None:
    pid = orphan(tmp_path, code)
    assert wait_for(lambda: not running(pid), within_s=10)
    assert (tmp_path / "cleaned-up").exists() == cleans_up


def test_a_child_prints_to_its_parent_and_does_not_hear_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text("import sys, time; print(sys.argv[1], flush=True); time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = start_child("echo", ["hello"])
    assert child.stdout is not None
    assert child.stdout.readline() == "hello\n"
    child.send_signal(signal.SIGINT)
    assert not wait_for(lambda: not running(child.pid), within_s=0.5)
    kill_child(child)
    assert not running(child.pid)


def test_errors_of_a_child_stay_out_of_its_output_unless_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "echo.py").write_text("import sys; print('out', flush=True); print('err', file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (tmp_path / "out").open("wb") as out, (tmp_path / "both").open("wb") as both:
        assert start_child("echo", stdout=out).wait(30) == 0
        assert start_child("echo", stdout=both, stderr=subprocess.STDOUT).wait(30) == 0
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "both").read_text() == "out\nerr\n"
    assert capfd.readouterr().err == "err\n"
