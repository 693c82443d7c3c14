"""Accepted requests for edits: the jobs of one request, from the queue to encoded pictures or to an error."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, Field

from pbe.errors import UserError, one_line
from pbe.serving.editor import Cancelled, Edited
from pbe.serving.service.edit_inputs import DecodedEdit
from pbe.serving.service.jobs import DrainingError, Job, QueueFullError
from pbe.serving.service.models import NoSuchModelError
from pbe.serving.service.openai_errors import ErrorBody, ErrorDetails, ServiceError
from pbe.serving.service.replies import EncodedEdit, EncodedPicture, encode_one, encoded_edit

RESTART_S = 10.0  # when to send an edit again that a restart has stopped
Status = Literal["queued", "running", "done", "failed", "cancelled"]


class JobObject(BaseModel):
    """An edit that is painted while its sender does other things."""

    id: str
    object: Literal["image.edit.job"] = "image.edit.job"
    status: Status
    progress: float = Field(ge=0, le=1, description="Share of the sampling steps that are done.")
    position: int = Field(ge=0, description="Place in the queue, from 1; 0 when it does not wait.")
    n: int = Field(ge=1)
    model: str
    model_version: str | None
    created_at: int = Field(description="Unix time, s.")
    expires_at: int | None = Field(description="When the job and its result are removed, once it has ended.")
    result_url: str | None = Field(description="Where the result is, once it is done; it needs the same token.")
    error: ErrorDetails | None = Field(description="Why it failed.")


class JobList(BaseModel):
    """The jobs of the caller's token, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobObject]


class EditTask:
    """The jobs of one request; ends once, with `result()`."""

    def __init__(self, jobs: Sequence[Job], decoded: DecodedEdit) -> None:
        self.n, self.model = len(jobs), jobs[0].model
        self.out_format, self.parameters = decoded.out_format, decoded.parameters
        self._notes, self._first_seed = decoded.notes, decoded.edits[0].seed
        self._waiting = list(jobs)  # those whose result is not encoded
        self.created_at = time.time()

    @property
    def status(self) -> Status:
        """Return queued until the first job is painted, then running, until `result()` returns."""
        begun = len(self._waiting) < self.n or any(job.status != "queued" for job in self._waiting)
        return "running" if begun else "queued"

    @property
    def progress(self) -> float:
        return (self.n - len(self._waiting) + sum(job.progress for job in self._waiting)) / self.n

    @property
    def position(self) -> int:
        return 0 if self.status == "running" else min(job.position for job in self._waiting)

    def cancel(self) -> None:
        """Cancel the jobs that have not ended."""
        for job in self._waiting:
            job.cancel()

    async def result(self, timeout_s: float, encoders: CapacityLimiter) -> EncodedEdit:
        """Return the encoded pictures; raises ServiceError when a job fails, is cancelled or takes too long.

        Each picture is encoded as soon as it is painted. When this is cancelled, so are the jobs.
        """
        pictures: list[EncodedPicture] = []
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    edited = await _edited(self._waiting[0])
                    seed = self._first_seed + len(pictures)
                    pictures.append(
                        await to_thread.run_sync(encode_one, edited, seed, self.out_format, limiter=encoders)
                    )
                    del self._waiting[0], edited
        except TimeoutError:
            message = f"the edit was not done within {timeout_s:g} s and was cancelled"
            raise ServiceError(504, message, code="timeout", headers={"x-should-retry": "false"}) from None
        finally:
            self.cancel()
        return encoded_edit(pictures, self.model, self.out_format, self._notes)


async def _edited(job: Job) -> Edited:
    """Wait for a job and return its result; raises ServiceError for what its sender should see."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    job.future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    await ended.wait()
    if (error := error_of(job.future)) is not None:
        raise error
    return job.future.result()


def error_of(future: "Future[Edited]") -> ServiceError | None:
    """Return the error of an ended job as its sender should see it."""
    if future.cancelled():
        return ServiceError(409, "the job was cancelled", code="cancelled", headers={"x-should-retry": "false"})
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, Cancelled):
        return ServiceError(409, "the job was cancelled", code="cancelled", headers={"x-should-retry": "false"})
    if isinstance(error, UserError):
        return refusal(error)
    return ServiceError(500, "the edit failed; the service's log says why", code="internal_error")  # logged there


def refusal(error: UserError) -> ServiceError:
    """Return why an edit was not accepted, or not painted, as its sender should see it."""
    message = one_line(error)
    if isinstance(error, QueueFullError):
        return ServiceError(429, message, code="queue_full", retry_after_s=error.retry_after_s)
    if isinstance(error, DrainingError):
        return ServiceError(503, message, code="shutting_down", retry_after_s=RESTART_S)
    if isinstance(error, NoSuchModelError):
        return ServiceError(404, message, param="model", code="model_not_found")
    return ServiceError(400, message, code="invalid_value")


def details_of(error: ServiceError) -> ErrorDetails:
    """Return an error as a job shows it."""
    return ErrorBody.model_validate(error.body).error


class BackgroundEdit:
    """An edit of `?async`, and later its result as a stored reply, or its error."""

    def __init__(self, job_id: str, owner: str, task: EditTask, lifetime_s: float) -> None:
        self.id, self.owner, self.task = job_id, owner, task
        self.reply: dict[str, Any] | None = None  # its pictures as ids of stored ones
        self.error: ServiceError | None = None
        self.is_fetched = False
        self._lifetime_s, self._ended_at = lifetime_s, 0.0
        self.worker: asyncio.Task[None] | None = None

    def end(self, reply: dict[str, Any] | None, error: ServiceError | None) -> None:
        """Keep the result or the error; the time until it is removed begins."""
        self.reply, self.error, self._ended_at = reply, error, time.time()

    @property
    def ended(self) -> bool:
        return self._ended_at > 0

    @property
    def expires_at(self) -> float | None:
        return self._ended_at + self._lifetime_s if self.ended else None

    @property
    def status(self) -> Status:
        if not self.ended:
            return self.task.status
        if self.error is None:
            return "done"
        return "cancelled" if self.error.code == "cancelled" else "failed"

    def shown(self, base_url: str) -> JobObject:
        """Return the job as its owner sees it."""
        done = self.status == "done"
        return JobObject(
            id=self.id,
            status=self.status,
            progress=1.0 if done else min(self.task.progress, 1.0),
            position=0 if self.ended else self.task.position,
            n=self.task.n,
            model=self.task.model.id,
            model_version=self.task.model.version,
            created_at=int(self.task.created_at),
            expires_at=int(self.expires_at) if self.expires_at else None,
            result_url=f"{base_url}/v1/jobs/{self.id}/result" if done else None,
            error=details_of(self.error) if self.error else None,
        )


class BackgroundEdits:
    """The edits of `?async`, by id, each for its owner only; used by the event loop's thread alone."""

    def __init__(self, max_of_owner: int, on_removal: Callable[[BackgroundEdit], None]) -> None:
        self._max_of_owner, self._on_removal = max_of_owner, on_removal
        self._edits: dict[str, BackgroundEdit] = {}  # the oldest first

    def __iter__(self) -> Iterator[BackgroundEdit]:
        return iter(list(self._edits.values()))

    def add(self, edit: BackgroundEdit) -> None:
        """Add a job; the owner's oldest ended ones make room."""
        self.remove_expired()
        own = [each for each in self._edits.values() if each.owner == edit.owner]
        ended = [each for each in own if each.ended]
        for each in ended[: max(0, len(own) + 1 - self._max_of_owner)]:
            self.remove(each)
        self._edits[edit.id] = edit

    def find(self, job_id: str, owner: str) -> BackgroundEdit:
        """Return the owner's job of this id; raises a 404 when there is none, or it is another's."""
        self.remove_expired()
        edit = self._edits.get(job_id)
        if edit is None or edit.owner != owner:
            message = "no such job; it may have expired, or the service was restarted: send the edit again"
            raise ServiceError(404, message, param="job_id", code="job_not_found")
        return edit

    def of(self, owner: str) -> list[BackgroundEdit]:
        """Return an owner's jobs, the newest first."""
        self.remove_expired()
        return [edit for edit in reversed(self._edits.values()) if edit.owner == owner]

    def remove(self, edit: BackgroundEdit) -> None:
        """Remove an ended job and its result."""
        self._edits.pop(edit.id, None)
        self._on_removal(edit)

    def remove_expired(self) -> None:
        """Remove the jobs whose time is over."""
        now = time.time()
        for edit in list(self._edits.values()):
            if edit.expires_at is not None and edit.expires_at <= now:
                self.remove(edit)
