"""Locks between processes. The kernel releases them however the process that holds them ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pbe.errors import UserError


@contextmanager
def hold_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file `path` for the block; `path` with the suffix .pid names the process that holds it.

    Waits up to `timeout_s` seconds, and raises UserError with the process that still holds the lock after that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".pid")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout_s, poll_interval=0.1)
    except Timeout:
        process = holder.read_text().strip() if holder.is_file() else "unknown"
        raise UserError(f"{path}: locked by process {process}; wait until it ends, or stop it") from None
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
