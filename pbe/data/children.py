"""Child processes that never outlive their parent, not even when the parent dies by SIGKILL.

The parent holds the write end of the child's standard input and never writes; when the parent goes, by whatever way,
the kernel closes it and the child, which reads nothing but that, sees the end of the file. Unlike Linux's
PR_SET_PDEATHSIG this does not depend on which thread started the child, and works on every POSIX system.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence


def start_child(module: str, arguments: Sequence[str], stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `python -m module arguments...`, whose main must call `exit_with_parent` first.

    `stdout` is a file descriptor or subprocess.PIPE (text, line by line); standard error is the parent's. An interrupt
    is for the parent alone.
    """
    command = [sys.executable, "-m", module, *arguments]
    # A terminal sends an interrupt to all of us, and each child would print a traceback: they are born with it blocked.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def stop_child(child: subprocess.Popen[str]) -> None:
    """Kill the child, if it still runs, and collect it; for children that leave nothing half-done."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def exit_with_parent() -> None:
    """Watch, in a thread, for the parent's end, and leave at once when it comes."""
    threading.Thread(target=_leave_at_end_of_input, name="exit-with-parent", daemon=True).start()


def _leave_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
