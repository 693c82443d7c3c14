"""How far a stage is: a bar on a terminal, a line now and then elsewhere, and a progress artifact in Prefect."""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from tqdm import tqdm

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total)
Bars = Callable[[str], Progress]  # what is counted -> where to say how far it is

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 2.0


def silent(what: str) -> Progress:
    """Say nothing: the bars of a stage that is called as a plain function."""
    return lambda done, total: None


def shown(stage: str) -> Bars:
    """Bars for `stage`, to stderr and, inside a Prefect flow run, to a progress artifact per bar."""
    return lambda what: Shown(stage, what)


class Shown:
    """One loop's progress; may be called from any thread, as often as the loop likes."""

    def __init__(self, stage: str, what: str) -> None:
        self._title = f"{stage}: {what}"
        self._lock = threading.Lock()
        self._started = self._said = self._sent = time.monotonic()
        self._bar: tqdm[None] | None = None
        self._artifact = _artifact(self._title)
        self._context = copy_context()  # which server: a thread that calls would not know

    def __call__(self, done: int, total: int) -> None:
        with self._lock:
            finished = done >= total
            if sys.stderr.isatty():
                self._draw(done, total, finished)
            else:
                self._say(done, total, finished)
            self._send(done, total, finished)

    def _draw(self, done: int, total: int, finished: bool) -> None:
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._title, leave=True, dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if finished:
            self._bar.close()
            self._bar = None

    def _say(self, done: int, total: int, finished: bool) -> None:
        now = time.monotonic()
        if finished or now - self._said >= LINE_EVERY_S:
            self._said = now
            share = f"{100 * done / max(total, 1):.0f} %"
            print(f"{self._title} {done}/{total} ({share}, {now - self._started:.0f} s)", file=sys.stderr, flush=True)

    def _send(self, done: int, total: int, finished: bool) -> None:
        now = time.monotonic()
        if self._artifact is None or not (finished or now - self._sent >= ARTIFACT_EVERY_S):
            return
        self._sent = now
        try:
            self._context.run(update_progress_artifact, self._artifact, 100 * done / max(total, 1))
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
