"""One at a time and never orphaned: a stage's lock, and the leash that ends a process whose parent has gone."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

PARENT = os.getppid()  # read as early as can be: after the parent's death it would be another
STATE = Path(".pbe")  # locks and saved tracebacks
POLL_S = 0.25


def die_with_parent(parent: int = PARENT, grace_s: float = 8.0) -> None:
    """End this process with SIGTERM soon after `parent` has gone, and with SIGKILL `grace_s` seconds later.

    `kill -9` of `dvc repro` leaves the stage it was running alive; the next `dvc repro` would then write into the
    same folders. A thread that polls works wherever os.getppid does, and leaves the stage time to stop its servers.
    """
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_watch, args=(parent, grace_s), name="leash", daemon=True).start()


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def hold(name: str, wait_s: float = 30.0) -> Iterator[None]:
    """Keep the lock `.pbe/<name>.lock` for the block; the kernel gives it back however the process ends.

    Waits up to `wait_s` seconds, which a predecessor whose parent was killed needs to go. Raises ValueError naming
    the process that still holds the lock after that.
    """
    STATE.mkdir(exist_ok=True)
    path = STATE / f"{name}.lock"
    with path.open("a+") as file:
        if not _locked_within(file.fileno(), wait_s):
            holder = path.read_text().strip() or "unknown"
            raise ValueError(f"{path}: {name} is running already (process {holder}); wait for it or stop it")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _locked_within(descriptor: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True
