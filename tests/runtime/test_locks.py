"""Locks between processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pbe.errors import UserError
from pbe.runtime.locks import hold_lock
from tests.support.toy_project import ROOT, running, wait_for

HOLDER = """
import sys, time
from pathlib import Path
from pbe.runtime.locks import hold_lock
with hold_lock(Path("stage.lock"), timeout_s=0):
    time.sleep(600)
"""


def start_holder(folder: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=folder, env=env)
    pid = folder / "stage.pid"
    assert wait_for(lambda: pid.exists() and pid.read_text() == f"{process.pid}\n")
    return process


def test_an_error_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    message = rf"stage\.lock: locked by process {holder.pid}; wait until it ends, or stop it"
    with pytest.raises(UserError, match=message), hold_lock(tmp_path / "stage.lock", timeout_s=0.3):
        pass
    holder.kill()
    holder.wait()


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    holder.send_signal(signal.SIGKILL)
    with hold_lock(tmp_path / "stage.lock", timeout_s=10):
        assert not running(holder.pid)
        assert (tmp_path / "stage.pid").read_text() == f"{os.getpid()}\n"
    holder.wait()


def test_a_lock_is_free_after_its_block_even_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "a.lock", timeout_s=0):
        raise ZeroDivisionError
    with hold_lock(tmp_path / "a.lock", timeout_s=0):
        pass
    assert not (tmp_path / "a.pid").exists()
