"""Which edits the queue has room for, and when a refused client should come back."""

from collections.abc import Collection, Sequence

from pbe.errors import UserError
from pbe.serving.editor import Edit
from pbe.serving.service.jobs import Job, QueueFullError

LARGEST_SHARE = 0.75  # of the queue that one owner may fill: the others always find room
LEAST_WAIT_S = 1.0


class Admission:
    """The limits of a queue: at most `max_queue` waiting jobs, and `max_pixels` in the sources of all jobs."""

    def __init__(self, max_queue: int, max_pixels: int) -> None:
        self.max_queue, self.max_pixels = max_queue, max_pixels
        self._promised_until = 0.0  # when the last refused client was asked to come back

    def check(
        self, edits: Sequence[Edit], owner: str, unfinished: Collection[Job], seconds_per_step: float, now: float
    ) -> None:
        """Raise QueueFullError when there is no room for these edits, and UserError when there never is.

        `now` is on any clock that only goes forward, in seconds.
        """
        pixels = num_pixels(edits)
        if pixels > self.max_pixels:
            largest = self.max_pixels / 1e6
            raise UserError(f"the source has {pixels / 1e6:.1f} megapixels; this service takes up to {largest:g}")
        share = max(1, int(self.max_queue * LARGEST_SHARE))
        if len(edits) > share:
            raise UserError(f"{len(edits)} edits at once: this service takes up to {share}")
        queued = [job for job in unfinished if job.status == "queued"]
        own = sum(job.owner == owner for job in queued)
        room = min(self.max_queue - len(queued), share - own)
        if len(edits) > room or (unfinished and pixels_held(unfinished) + pixels > self.max_pixels):
            wait_s = self._wait_s(edits, unfinished, seconds_per_step, now)
            raise QueueFullError(f"the queue is full: {len(queued)} edits wait; try again in {wait_s:.0f} s", wait_s)

    def _wait_s(self, edits: Sequence[Edit], unfinished: Collection[Job], seconds_per_step: float, now: float) -> float:
        """Return when these edits will find room, after those that were refused before.

        Each refused client gets a later time than the one before, up to the time in which the queue becomes empty.
        """
        steps = sum(edit.options.num_steps for edit in edits)
        left = sum(job.work.num_steps_left for job in unfinished if job.work)
        next_one = max(now, self._promised_until) + steps * seconds_per_step
        self._promised_until = min(next_one, now + (left + steps) * seconds_per_step)
        return max(LEAST_WAIT_S, self._promised_until - now)


def num_pixels(edits: Sequence[Edit]) -> int:
    """Return the pixels of the sources; variants of one source count once."""
    return sum({id(edit.source): _pixels(edit) for edit in edits}.values())


def pixels_held(jobs: Collection[Job]) -> int:
    """Return the pixels of the sources of all jobs that have not ended."""
    return num_pixels([job.work.edit for job in jobs if job.work])


def _pixels(edit: Edit) -> int:
    return int(edit.source.shown.shape[0] * edit.source.shown.shape[1])
