"""The output of a stage's process, for the log of its run: what it prints passes through a pipe on its way out."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ON_TERMINAL = "PBE_ON_TERMINAL"  # tells a stage's process that its output ends on a terminal, behind a pipe
MAX_LINE_CHARACTERS = 2000
_CLOSE_S = 2.0
_STREAMS = (1, 2)


def on_terminal() -> bool:
    """Return whether what this process prints on stderr is shown on a terminal."""
    return sys.stderr.isatty() or ON_TERMINAL in os.environ


class LastLine:
    """Passes lines on and keeps the last one that says anything."""

    def __init__(self, on_line: Callable[[str], object]) -> None:
        self._on_line = on_line
        self.text = ""

    def __call__(self, line: str) -> None:
        if line.strip():
            self.text = line.strip()
            self._on_line(line[:MAX_LINE_CHARACTERS])


@contextmanager
def copied_output(on_line: Callable[[str], object]) -> Iterator[LastLine]:
    """Pass every line that this process and its children print during the block to `on_line`, from a thread.

    The output itself goes where it went before. Of a progress bar only its last state is a line. The yielded LastLine
    is complete after the block.
    """
    last = LastLine(on_line)
    logging.raiseExceptions = False  # a failure to log a line must not print a line
    before = {stream: os.dup(stream) for stream in _STREAMS}
    consoles = _silence_consoles()
    terminal = {ON_TERMINAL: "1"} if on_terminal() and ON_TERMINAL not in os.environ else {}
    threads = []
    _flush()
    os.environ.update(terminal)
    for stream, target in before.items():
        reading, writing = os.pipe()
        os.dup2(writing, stream)
        os.close(writing)
        threads.append(threading.Thread(target=_copy, args=(reading, os.dup(target), last), daemon=True))
        threads[-1].start()
    try:
        yield last
    finally:
        _flush()
        for stream, target in before.items():
            os.dup2(target, stream)
            os.close(target)
        for name in terminal:
            del os.environ[name]
        for thread in threads:
            thread.join(_CLOSE_S)  # a process that outlives its stage still holds the pipe
        for handler, level in consoles.items():
            handler.setLevel(level)


def _silence_consoles() -> dict[logging.Handler, int]:
    """Silence the handlers that write to the terminal: a line that is logged would come back through the pipe for ever.

    Prefect's handler is at the root logger. Returns their levels.
    """
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    levels: dict[logging.Handler, int] = {handler: handler.level for handler in handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    return levels


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _copy(reading: int, target: int, on_line: LastLine) -> None:
    with open(reading, "rb", buffering=0) as source, open(target, "wb", buffering=0) as out:
        rest = b""
        while chunk := source.read(65536):
            out.write(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(_shown(line))
        on_line(_shown(rest))


def _shown(line: bytes) -> str:
    """Return what a terminal shows of a line that a progress bar has written over."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
