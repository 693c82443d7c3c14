"""Jobs: one edit each, from its acceptance to its result."""

import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Literal, Protocol

from pbe.errors import UserError
from pbe.serving.editor import Edit, Edited, PaintWindow, Prepared
from pbe.serving.service.models import LoadedModel, ModelInfo
from pbe.types import Image

Status = Literal["queued", "running", "done", "failed", "cancelled"]
EndStatus = Literal["done", "failed", "cancelled"]
OnPreview = Callable[[Image], None]


class QueueFullError(UserError):
    """The queue has no room for the request; `retry_after_s` is when it is expected to have some."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(UserError):
    """The service is shutting down: it accepts no new edit, or it stopped before this one was done."""


class Queue(Protocol):
    """What a job asks of the dispatcher that accepted it."""

    def position(self, job: "Job") -> int: ...

    def cancel(self, job: "Job") -> bool: ...


class Job:
    """An accepted edit.

    `future` holds the result, or the exception that ended the job: UserError for what the caller can correct,
    DrainingError when the service stopped first. Cancelling the future cancels the job, too.
    """

    def __init__(self, edit: Edit, loaded: LoadedModel, owner: str, on_preview: OnPreview | None, queue: Queue) -> None:
        self.id = uuid.uuid4().hex
        self.owner = owner
        self.model: ModelInfo = loaded.info
        self.status: Status = "queued"
        self.future: Future[Edited] = Future()
        self.submitted_at, self.started_at, self.ended_at = time.time(), 0.0, 0.0  # Unix time, s; 0 = not yet
        self.work: Work | None = Work(edit, loaded, on_preview)
        self._progress = 0.0
        self._queue = queue

    @property
    def position(self) -> int:
        """Its place in the queue, counted from 1; 0 once it is painted, and at its end."""
        return self._queue.position(self)

    @property
    def progress(self) -> float:
        """The share of its sampling steps that are done, from 0 to 1."""
        work = self.work
        return work.progress if work else self._progress

    @property
    def ended(self) -> bool:
        """Return whether it is done, failed or cancelled."""
        return self.status in ("done", "failed", "cancelled")

    def cancel(self) -> bool:
        """Cancel the job, queued or running; return False when it had ended before."""
        return self._queue.cancel(self)

    def end(self, status: EndStatus) -> None:
        """End the job, which lets go of its pictures and its model; the dispatcher calls it."""
        self._progress = 1.0 if status == "done" else self.progress
        self.status, self.ended_at, self.work = status, time.time(), None


class Work:
    """What the dispatcher holds of a job that has not ended: its edit, its model, and its windows."""

    def __init__(self, edit: Edit, loaded: LoadedModel, on_preview: OnPreview | None) -> None:
        self.edit, self.loaded, self.on_preview = edit, loaded, on_preview
        self.prepared: Prepared | None = None
        self.pending: deque[int] = deque()  # numbers of the windows that no batch has taken
        self.squares: list[Image | None] = []  # of each window, once painted
        self.previews: list[Image | None] = []  # of each window, as it would look now
        self.fractions: list[float] = []  # of each window's steps that are done
        self.ready_at = 0.0  # on the monotonic clock, s
        self.preview_is_due = False  # it waits to be shown

    def set_prepared(self, prepared: Prepared) -> None:
        """Take the windows, which are then ready to be painted."""
        self.prepared = prepared
        self.pending = deque(range(len(prepared.windows)))
        self.squares = [None] * len(prepared.windows)
        self.previews = [None] * len(prepared.windows)
        self.fractions = [0.0] * len(prepared.windows)
        self.ready_at = time.monotonic()

    @property
    def progress(self) -> float:
        return sum(self.fractions) / len(self.fractions) if self.fractions else 0.0

    @property
    def num_steps_left(self) -> float:
        """Sampling steps that are to be done; those of one window before the windows are known."""
        return self.edit.options.num_steps * ((len(self.fractions) or 1) - sum(self.fractions))

    def group(self, number: int) -> Hashable:
        """Return what two windows must share to be painted together: the model, and the editor's group."""
        return id(self.loaded), self.window(number).group

    def window(self, number: int) -> PaintWindow:
        assert self.prepared is not None
        return self.prepared.windows[number]

    @property
    def painted(self) -> list[Image] | None:
        """The painted squares, one for each window, or None when one is missing."""
        squares = [square for square in self.squares if square is not None]
        return squares if len(squares) == len(self.squares) else None

    def show(self) -> None:
        """Call `on_preview` with the picture as it would look now."""
        self.preview_is_due = False
        if self.prepared is not None and self.on_preview is not None:
            squares = [seen if done is None else done for done, seen in zip(self.squares, self.previews, strict=True)]
            self.on_preview(self.loaded.editor.show(self.prepared, squares))
