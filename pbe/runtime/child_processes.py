"""Child processes that end when their parent ends, even when SIGKILL ends it.

A process that runs our code watches its parent from a thread (`exit_with_parent`). This also works for a stage, which
DVC starts and not we. Linux's PR_SET_PDEATHSIG would need code between fork and exec, and fires when the *thread* ends
that started the child.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import IO, NoReturn

_PARENT = os.getppid()  # read at import: after the parent's end it is another process
_POLL_S = 0.25


def start_child(
    module: str,
    arguments: Sequence[str] = (),
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
    *,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> subprocess.Popen[str]:
    """Start `python -m module arguments...`, whose main function must call `exit_with_parent` first.

    `stdout`, `stderr` and `pass_fds` are subprocess.Popen's, in text mode. Ctrl-C reaches the parent alone: the child
    starts with SIGINT blocked. A library in the child may unblock it; with `new_session` a terminal does not send it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            pass_fds=pass_fds,
            start_new_session=new_session,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def kill_child(child: subprocess.Popen[str]) -> None:
    """Kill a child that leaves nothing incomplete, and collect it."""
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def stop_process(process: subprocess.Popen[str] | subprocess.Popen[bytes], timeout_s: float) -> None:
    """Send SIGTERM, and SIGKILL after `timeout_s` seconds; return when the process has ended."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_parent() -> None:
    """Return when the process that started this one has ended."""
    while os.getppid() == _PARENT:
        time.sleep(_POLL_S)


def exit_with_parent(wait: Callable[[], object] = wait_for_parent, *, grace_s: float = 0.0) -> None:
    """End this process when `wait` returns, which says that the parent has ended.

    With `grace_s` the process gets SIGTERM, which raises SystemExit, and SIGKILL that many seconds later; without, it
    ends immediately. Call it from the main thread.
    """
    if grace_s:
        signal.signal(signal.SIGTERM, _raise_system_exit)
    threading.Thread(target=_exit_after, args=(wait, grace_s), name="exit-with-parent", daemon=True).start()


def _exit_after(wait: Callable[[], object], grace_s: float) -> None:
    wait()
    if grace_s:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(1)


def _raise_system_exit(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signum, signal.SIG_IGN)
    raise SystemExit(128 + signum)
