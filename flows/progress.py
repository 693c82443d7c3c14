"""Progress of a stage: a bar on a terminal, a line every few seconds elsewhere, and a progress artifact in Prefect."""

import logging
import os
import re
import sys
import threading
import time
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from tqdm import tqdm

from flows.output import on_terminal
from pbe.types import ProgressBars

logger = logging.getLogger(__name__)

LINE_EVERY_S = 10.0
ARTIFACT_EVERY_S = 2.0
_LINE = "{desc} {n_fmt}/{total_fmt} ({percentage:.0f} %{postfix}, {elapsed} elapsed, {remaining} left)"


def stage_progress(stage: str) -> ProgressBars:
    """Return the progress bars of `stage`, each with its own artifact inside a Prefect flow run."""
    return lambda name: StageProgress(stage, name)


class StageProgress:
    """The progress of one loop. Any thread may call it, at any rate; tqdm estimates the time left."""

    def __init__(self, stage: str, name: str) -> None:
        self._title = f"{stage}: {name}"
        self._lock = threading.Lock()
        self._printed = self._sent = time.monotonic()
        self._bar: tqdm[None] | None = None
        self._artifact = _create_artifact(self._title)
        self._context = copy_context()  # names Prefect's server; a thread that calls has another context

    def __call__(self, done: int, total: int, note: str = "") -> None:
        with self._lock:
            bar = self._bar = self._bar or self._new_bar(total)
            bar.total = total
            bar.set_postfix_str(note, refresh=False)
            bar.update(done - bar.n)
            self._show(bar, finished=done >= total)

    def _new_bar(self, total: int) -> "tqdm[None]":
        if on_terminal():
            return tqdm(total=total, desc=self._title, dynamic_ncols=True)
        return tqdm(total=total, desc=self._title, file=open(os.devnull, "w"), bar_format=_LINE)

    def _show(self, bar: "tqdm[None]", finished: bool) -> None:
        now = time.monotonic()
        if not on_terminal() and (finished or now - self._printed >= LINE_EVERY_S):
            self._printed = now
            print(bar, file=sys.stderr, flush=True)
        if self._artifact and (finished or now - self._sent >= ARTIFACT_EVERY_S):
            self._sent = now
            self._send(self._artifact, 100 * bar.n / max(bar.total, 1), str(bar))
        if finished:
            bar.close()
            self._bar = None

    def _send(self, artifact: UUID, percent: float, line: str) -> None:
        try:
            self._context.run(update_progress_artifact, artifact, percent, line)
        except httpx.HTTPError as error:  # without its server a stage must still finish its work
            logger.warning("%s: Prefect's server does not accept progress any more (%s)", self._title, error)
            self._artifact = None


def _create_artifact(title: str) -> UUID | None:
    if FlowRunContext.get() is None:
        return None
    key = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    try:
        created = create_progress_artifact(0.0, key=key, description=title)
    except httpx.HTTPError as error:
        logger.warning("%s: Prefect's server does not accept progress (%s)", title, error)
        return None
    assert isinstance(created, UUID)
    return created
