"""How far a stage is: a bar on a terminal, a line now and then elsewhere, and a progress artifact in Prefect."""

import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Where to say how far a loop is, and in a few words how it goes."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


Bars = Callable[[str], Progress]  # what is counted -> where to say how far it is

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 2.0


def silent(what: str) -> Progress:
    """Say nothing: the bars of a stage that is called as a plain function."""
    return lambda done, total, note="": None


def shown(stage: str) -> Bars:
    """Bars for `stage`, to stderr and, inside a Prefect flow run, to a progress artifact per bar."""
    return lambda what: Shown(stage, what)


class TimeLeft:
    """How long a loop still needs, by its pace over the last half minute; told when it is known."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=30)  # (when, done), a second apart

    def estimate(self, now: float, done: int, total: int) -> float | None:
        """Seconds, or None in the first seconds."""
        if not self._marks or now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, done))
        began, before = self._marks[0]
        if now - began < 1.0 or done <= before:
            return None
        return (total - done) * (now - began) / (done - before)


def clock_time(seconds: float) -> str:
    """2:05 for 125 seconds, 1:02:05 for 3725."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Shown:
    """One loop's progress; may be called from any thread, as often as the loop likes."""

    def __init__(self, stage: str, what: str) -> None:
        self._title = f"{stage}: {what}"
        self._lock = threading.Lock()
        self._started = self._said = self._sent = time.monotonic()
        self._time_left = TimeLeft()
        self._bar: tqdm[None] | None = None
        self._artifact = _artifact(self._title)
        self._context = copy_context()  # which server: a thread that calls would not know

    def __call__(self, done: int, total: int, note: str = "") -> None:
        with self._lock:
            now = time.monotonic()
            finished = done >= total
            left = self._time_left.estimate(now, done, total)
            if sys.stderr.isatty():
                self._draw(done, total, note, finished)
            elif finished or now - self._said >= LINE_EVERY_S:
                self._said = now
                print(self._line(done, total, note, now, left), file=sys.stderr, flush=True)
            if self._artifact and (finished or now - self._sent >= ARTIFACT_EVERY_S):
                self._sent = now
                self._send(self._artifact, 100 * done / max(total, 1), self._line(done, total, note, now, left))

    def _draw(self, done: int, total: int, note: str, finished: bool) -> None:
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._title, leave=True, dynamic_ncols=True)
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        if finished:
            self._bar.close()
            self._bar = None

    def _line(self, done: int, total: int, note: str, now: float, left: float | None) -> str:
        parts = [f"{100 * done / max(total, 1):.0f} %", note, f"{now - self._started:.0f} s"]
        if left is not None and done < total:
            parts.append(f"{clock_time(left)} left")
        return f"{self._title} {done}/{total} ({', '.join(part for part in parts if part)})"

    def _send(self, artifact: UUID, percent: float, line: str) -> None:
        try:
            self._context.run(update_progress_artifact, artifact, percent, line)
        except httpx.HTTPError as error:  # a server that went away must not end hours of training
            logger.warning("%s: Prefect's server no longer takes progress (%s)", self._title, error)
            self._artifact = None


def _artifact(title: str) -> UUID | None:
    if FlowRunContext.get() is None:
        return None
    key = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    created = create_progress_artifact(0.0, key=key, description=title)
    assert isinstance(created, UUID)
    return created
