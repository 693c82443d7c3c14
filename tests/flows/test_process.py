"""Locks and leashes, with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.process import hold
from tests.support.toy_project import ROOT, running, wait_for

HOLDER = """
import time
from flows.process import die_with_parent, hold
die_with_parent(grace_s=1.0)
with hold("stage", wait_s=0):
    try:
        time.sleep(600)
    finally:
        open("stopped", "w")
"""
STUBBORN = HOLDER.replace("time.sleep(600)", "__import__('ctypes').CDLL(None).sigsuspend(bytes([0xff] * 128))")


def orphan(tmp_path: Path, code: str) -> int:
    """Start a process that holds the lock, kill its parent with SIGKILL, and return its pid."""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=env)
    lock = tmp_path / ".pbe/stage.lock"
    assert wait_for(lambda: lock.exists() and lock.read_text() != "")
    pid = int(lock.read_text())
    assert running(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return pid


def test_a_process_ends_with_its_parent_and_cleans_up(tmp_path: Path) -> None:
    pid = orphan(tmp_path, HOLDER)
    assert wait_for(lambda: not running(pid), within_s=10)
    assert (tmp_path / "stopped").exists()


def test_a_process_that_hears_no_signal_is_killed_after_the_grace(tmp_path: Path) -> None:
    pid = orphan(tmp_path, STUBBORN)
    assert wait_for(lambda: not running(pid), within_s=10)
    assert not (tmp_path / "stopped").exists()


def test_a_new_run_waits_for_the_dying_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = orphan(tmp_path, HOLDER)
    monkeypatch.chdir(tmp_path)
    with hold("stage"):
        assert not running(pid)
        assert int((tmp_path / ".pbe/stage.lock").read_text()) == os.getpid()


def test_a_lock_that_stays_taken_names_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = rf"train is running already \(process {os.getpid()}\)"
    with hold("train"), pytest.raises(ValueError, match=told), hold("train", wait_s=0.3):
        pass
    with hold("train", wait_s=0):
        pass
