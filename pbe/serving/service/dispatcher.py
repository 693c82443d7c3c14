"""The dispatcher: a bounded queue of edits, and one thread that paints windows of several users in batches.

    submit -> prepare (threads) -> queue, one line for each owner -> paint (one thread) -> finish (threads) -> future

Square windows of one group share a shape and a sampler's steps, so that they are painted in one call, whoever sent
them; a window's bits do not depend on its neighbours. Owners are served in rotation. The painting thread does nothing
but paint: checking, cutting and putting back happen beside it. One process uses one device: give each further device a
process, as Ray Serve does.
"""

import logging
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from pbe.errors import UserError
from pbe.serving.editor import Cancelled, Edit, Edited, Prepared
from pbe.serving.service.admission import Admission, pixels_held
from pbe.serving.service.batches import Batch
from pbe.serving.service.dispatcher_state import Counters, DispatcherState
from pbe.serving.service.fair_queue import FairQueue
from pbe.serving.service.jobs import DrainingError, EndStatus, Job, OnPreview, QueueFullError
from pbe.serving.service.models import MAX_BATCH, Models
from pbe.types import Image

NUM_THREADS = 2  # that prepare, and as many that finish
MAX_BUGS = 3  # failures in a row that are no user's: the painter is broken then
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

_log = logging.getLogger(__name__)


class Dispatcher:
    """Paints edits of several users with one device.

    At most `max_queue` jobs wait, and the sources of all jobs have at most `max_pixels`. A window waits up to
    `max_wait_s` for others to fill a batch of `max_batch`.
    """

    def __init__(
        self,
        models: Models,
        *,
        max_batch: int = MAX_BATCH,
        max_wait_s: float = 0.02,
        max_queue: int = 64,
        max_pixels: int = 200_000_000,
    ) -> None:
        self.models = models
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._changed = threading.Condition()  # guards everything below
        self._admission = Admission(max_queue, max_pixels)
        self._to_prepare, self._to_paint = FairQueue(), FairQueue()
        self._unfinished: set[Job] = set()
        self._known: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
        self._counters = Counters()
        self._bugs = 0  # failures in a row
        self._num_preparing = 0
        self._draining = self._stopped = False
        self._preparing = ThreadPoolExecutor(NUM_THREADS, "prepare")
        self._finishing = ThreadPoolExecutor(NUM_THREADS, "finish")
        self._showing = ThreadPoolExecutor(1, "preview")
        self._sampling = ThreadPoolExecutor(1, "paint")
        self._loop = threading.Thread(target=self._paint_batches, name="dispatch", daemon=True)

    def start(self) -> None:
        """Load the models, follow their aliases, and begin to paint; raises UserError when one cannot be loaded."""
        self.models.start()
        self._loop.start()

    @property
    def ready(self) -> bool:
        """Whether it accepts edits: the models are loaded, it is not draining, and its painter works."""
        return self.models.ready and self._loop.is_alive() and not self._draining and self.healthy

    @property
    def healthy(self) -> bool:
        """Whether its painter works: a process whose painter fails again and again should be replaced."""
        return self._bugs < MAX_BUGS and (self._loop.is_alive() or self._draining or not self._loop.ident)

    @property
    def state(self) -> DispatcherState:
        with self._changed:
            queued = sum(job.status == "queued" for job in self._unfinished)
            return DispatcherState(
                counters=self._counters.copy(),
                queued=queued,
                running=len(self._unfinished) - queued,
                pixels=pixels_held(self._unfinished),
                max_batch=self._max_batch,
                draining=self._draining,
                healthy=self.healthy,
            )

    def submit(
        self, edit: Edit, model: str | None = None, *, owner: str = "", on_preview: OnPreview | None = None
    ) -> Job:
        """Accept an edit; see `submit_all`."""
        return self.submit_all([edit], model, owner=owner, on_preview=on_preview)[0]

    def submit_all(
        self, edits: Sequence[Edit], model: str | None = None, *, owner: str = "", on_preview: OnPreview | None = None
    ) -> list[Job]:
        """Accept all of these edits, or none; returns at once.

        `owner` is who shares the queue's turns; `on_preview` gets the picture (H, W, 3) as it would look now, every few
        steps, in a thread. Raises UserError for an unknown model, an option out of range or a source that is too large,
        QueueFullError, and DrainingError. Other errors of an edit end its job.
        """
        loaded = self.models.resolve(model)
        for edit in edits:
            edit.options.check()
        with self._changed:
            if self._draining:
                raise DrainingError("the service is shutting down; send the edit again later")
            self._check_room(edits, owner)
            jobs = [Job(edit, loaded, owner, on_preview, self) for edit in edits]
            for job in jobs:
                self._unfinished.add(job)
                self._known[job.id] = job
                self._to_prepare.add(job)
            self._counters.accepted += len(jobs)
            self._start_preparing()
        for job in jobs:
            job.future.add_done_callback(partial(_cancel_with_future, weakref.ref(job)))
        return jobs

    def find(self, job_id: str) -> Job | None:
        """Return a job that has not ended, or that somebody still holds."""
        with self._changed:
            return self._known.get(job_id)

    def position(self, job: Job) -> int:
        """Return a job's place in the queue, from 1; 0 when it does not wait."""
        with self._changed:
            if job.status != "queued":
                return 0
            return self._to_paint.position(job) or len(self._to_paint) + max(1, self._to_prepare.position(job))

    def cancel(self, job: Job) -> bool:
        """Cancel a job, queued or running; return False when it had ended. A batch stops with its last job."""
        ended = self._end(job, "cancelled")
        if ended:
            job.future.cancel()
        return ended

    def drain(self, timeout_s: float) -> bool:
        """Accept no further edit, and paint those accepted; return whether all were done in time.

        Those that were not end with DrainingError. The dispatcher has stopped then.
        """
        with self._changed:
            self._draining = True
            done = self._changed.wait_for(lambda: not self._unfinished, timeout_s)
            left = list(self._unfinished)
            self._stopped = True
            self._changed.notify_all()
        for job in left:
            self._fail(job, DrainingError("the service stopped before this edit was done; send it again"))
        if self._loop.is_alive():
            self._loop.join()
        for pool in (self._preparing, self._sampling, self._finishing, self._showing):
            pool.shutdown()
        self.models.stop()
        return done

    def _check_room(self, edits: Sequence[Edit], owner: str) -> None:
        try:
            seconds_per_step = self._counters.seconds_per_step
            self._admission.check(edits, owner, self._unfinished, seconds_per_step, time.monotonic())
        except QueueFullError:
            self._counters.refused += 1
            raise

    def _start_preparing(self) -> None:
        """Prepare the jobs whose turn it is, at most one in each thread; the caller holds the lock."""
        while len(self._to_prepare) and self._num_preparing < NUM_THREADS:
            job = self._to_prepare.pop()
            if job.work is not None:
                self._num_preparing += 1
                prepared = self._preparing.submit(job.work.loaded.editor.prepare, job.work.edit)
                prepared.add_done_callback(partial(self._prepared, job))

    def _prepared(self, job: Job, prepared: "Future[Prepared]") -> None:
        with self._changed:
            self._num_preparing -= 1
            self._start_preparing()
            if job.work is not None and not prepared.exception():
                job.work.set_prepared(prepared.result())
                self._to_paint.add(job)
                self._changed.notify_all()
        if error := prepared.exception():
            self._fail(job, error)

    def _paint_batches(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            self._paint(batch)
            del batch  # it would hold pictures, and a replaced model, until the next batch

    def _next_batch(self) -> Batch | None:
        """Wait for windows and take the next batch; returns None when the dispatcher has stopped."""
        with self._changed:
            while not self._stopped:
                head = self._to_paint.head()
                if head is None or head.work is None:
                    self._changed.wait()
                    continue
                most = min(self._max_batch, head.work.loaded.editor.max_batch)
                batch = self._to_paint.batch(most)
                left_s = head.work.ready_at + self._max_wait_s - time.monotonic()
                if len(batch) >= most or left_s <= 0:
                    self._take(batch)
                    return batch
                self._changed.wait(left_s)
            return None

    def _take(self, batch: Batch) -> None:
        self._to_paint.take(batch)
        for job in batch.works:
            if job.status == "queued":
                job.status, job.started_at = "running", time.time()
                self._counters.waiting_s += job.started_at - job.submitted_at

    def _paint(self, batch: Batch) -> None:
        """Paint windows of one group; when that fails, paint each alone, and end the jobs of those that fail again."""
        if batch.all_ended():
            return
        with self.models.turn:
            started = time.monotonic()
            painted = self._sampling.submit(
                batch.editor.paint,
                batch.windows,
                on_step=batch.report,
                on_preview=partial(self._preview, batch) if batch.wants_previews else None,
                cancelled=batch.all_ended,
            )
            error, seconds = painted.exception(), time.monotonic() - started
        if error is None:
            self._keep(batch, painted.result(), seconds)
        elif len(batch) > 1 and not isinstance(error, Cancelled):
            self._paint_alone(batch, error)
        elif not isinstance(error, Cancelled):
            self._bugs += not isinstance(error, UserError)
            self._fail(batch.tasks[0].job, error)

    def _paint_alone(self, batch: Batch, error: BaseException) -> None:
        if isinstance(error, OUT_OF_MEMORY):
            self._max_batch = len(batch) // 2
            _log.warning("memory ran out with %d windows; from now on at most %d", len(batch), self._max_batch)
        for alone in batch.split():
            self._counters.retried += 1
            self._paint(alone)

    def _keep(self, batch: Batch, squares: list[Image], seconds: float) -> None:
        """Keep the painted squares, and put back those of the jobs that have all."""
        with self._changed:
            self._bugs = 0
            self._counters.count_batch(len(batch), batch.num_steps, seconds)
            batch.set_squares(squares)
        for job, work in batch.works.items():
            painted = work.painted
            if painted is not None and work.prepared is not None and not job.ended:
                finished = self._finishing.submit(work.loaded.editor.finish, work.prepared, painted)
                finished.add_done_callback(partial(self._finished, job))

    def _finished(self, job: Job, finished: "Future[Edited]") -> None:
        if error := finished.exception():
            self._fail(job, error)
            return
        if self._end(job, "done") and job.future.set_running_or_notify_cancel():
            job.future.set_result(finished.result())

    def _preview(self, batch: Batch, squares: list[Image]) -> None:
        """Show each job in the batch how it would look now, unless its last preview has not been shown."""
        batch.set_previews(squares)
        for work in batch.works.values():
            if work.on_preview and not work.preview_is_due:
                work.preview_is_due = True
                self._showing.submit(work.show).add_done_callback(_log_bug)

    def _fail(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, UserError):
            _log.error("job %s failed", job.id, exc_info=error)
        if self._end(job, "failed") and job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _end(self, job: Job, status: EndStatus) -> bool:
        """End a job; return False when it had ended."""
        with self._changed:
            if job.ended:
                return False
            job.end(status)
            self._unfinished.discard(job)
            self._to_prepare.remove(job)
            self._to_paint.remove(job)
            setattr(self._counters, status, getattr(self._counters, status) + 1)
            self._changed.notify_all()
            return True


def _log_bug(future: "Future[None]") -> None:
    if error := future.exception():
        _log.error("a preview could not be shown", exc_info=error)


def _cancel_with_future(job: "weakref.ref[Job]", future: "Future[Edited]") -> None:
    if future.cancelled() and (cancelled := job()):
        cancelled.cancel()
