"""Ctrl-C and SIGTERM end a stage or the pipeline within seconds, whatever hangs.

The first signal raises KeyboardInterrupt in the main thread, so that everything is closed in order. After LIMIT_S
seconds, or at a second signal, this process kills the processes that it started and exits.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

LIMIT_S = 7.0
STOP_S = 4.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED_CODES = tuple(128 + number for number in SIGNALS)  # as a shell reports them

_received: int | None = None  # the signal that interrupted this process
_started: list[psutil.Process] = []  # what ran below this process then: an orphan has another parent later


def exit_on_ctrl_c() -> None:
    """Let Ctrl-C end this process with one line while it has nothing to close: it imports for seconds."""
    signal.signal(signal.SIGINT, _exit_quietly)


def _exit_quietly(number: int, frame: FrameType | None) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(128 + number)


@contextmanager
def handle_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGINT and SIGTERM during the block, and bound the time until the process ends.

    Libraries replace these handlers, so that a block inside another one installs them again. Outside of the main thread
    Python accepts no handlers, and this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Let a process that has finished its work end with exit code 0, also when Ctrl-C comes now."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def was_interrupted() -> bool:
    """Return whether a signal has interrupted this process."""
    return _received is not None


def interrupted_code() -> int:
    """Return the exit code of an interrupted process: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_received or signal.SIGINT)


def exit_within(seconds: float, code: int) -> None:
    """Exit with `code` after some seconds if the process still runs then, and kill the processes that it started."""
    threading.Thread(target=_exit_after, args=(seconds, code), name="exit-within", daemon=True).start()


def exit_now(code: int) -> NoReturn:
    """Exit without the interpreter's own end, which waits for libraries' threads, and kill what still runs below.

    A server in its own session gets SIGTERM, and may still write its database.
    """
    session = os.getsid(0)
    for process in {*_started, *_below(psutil.Process())}:
        with suppress(ProcessLookupError):
            _end(process.kill if os.getsid(process.pid) == session else process.terminate)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def stop_children(keep: Callable[[psutil.Process], bool]) -> None:
    """Send SIGTERM to the child processes for which `keep` is false; kill those that still run after STOP_S seconds."""
    children = [child for child in psutil.Process().children() if not keep(child)]
    below = [process for child in children for process in _below(child)]
    for child in children:
        _end(child.terminate)
    for process in psutil.wait_procs([*children, *below], timeout=STOP_S)[1]:
        _end(process.kill)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        below: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return below


def _end(how: Callable[[], object]) -> None:
    with suppress(psutil.NoSuchProcess):
        how()


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None:
        exit_now(interrupted_code())
    _received = number
    _started.extend(_below(psutil.Process()))
    exit_within(LIMIT_S, interrupted_code())
    raise KeyboardInterrupt


def _exit_after(seconds: float, code: int) -> None:
    time.sleep(seconds)
    if was_interrupted():  # the exception may have been raised where Python ignores it, such as in a destructor
        print("error: interrupted; the next run continues from here", file=sys.stderr)
    exit_now(code)
