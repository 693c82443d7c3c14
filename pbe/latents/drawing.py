"""Draws training samples ahead of their use, in processes (which feed a GPU) or in threads.

Drawing takes a core 5 to 7 ms a sample at 512 px. About a quarter of that is Python code, which holds the lock of the
interpreter: threads would slow down the one that feeds a GPU. The processes send samples through pipes: torch's
DataLoader would need 1.4 MB of shared memory for each sample in flight, which containers limit, and would add its own
lines to a UserError.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context

import cv2

from pbe.dataset.curated_boxes import CuratedBox
from pbe.latents.samples import SampleDrawer
from pbe.method.training_triplet import TrainingTriplet
from pbe.runtime.child_processes import exit_with_parent

Draw = tuple[CuratedBox, int]  # a box and the number of its variant

_BATCHES_AHEAD = 4
_MAX_SAMPLES_A_TASK = 8

_drawer: SampleDrawer | None = None  # of this process, if it is one that draws


class DrawingPool:
    """A pool of workers that draw samples."""

    def __init__(self, drawer: SampleDrawer, num_workers: int, *, processes: bool) -> None:
        self.num_workers = num_workers
        self._drawer = None if processes else drawer
        self._pool: ProcessPoolExecutor | ThreadPoolExecutor = (
            ProcessPoolExecutor(num_workers, get_context("spawn"), _start_process, (drawer,))
            if processes
            else ThreadPoolExecutor(num_workers, thread_name_prefix="draw")
        )
        self._pool.submit(int)  # the processes start now, not with the first sample

    def submit(self, draws: Sequence[Draw]) -> Future[list[TrainingTriplet]]:
        """Draw samples in a worker; the result raises what `SampleDrawer.draw` raises."""
        if self._drawer:
            return self._pool.submit(draw_all, self._drawer, draws)
        return self._pool.submit(_draw_in_process, draws)

    def draw_batches(self, batches: Iterable[Sequence[Draw]]) -> Iterator[list[TrainingTriplet]]:
        """Draw batches in order, some of them ahead; all workers draw parts of the same batch."""
        remaining = iter(batches)
        drawn = deque(self._submit_parts(batch) for batch in islice(remaining, _BATCHES_AHEAD))
        while drawn:
            parts = drawn.popleft()
            yield [sample for part in parts for sample in part.result()]
            drawn.extend(self._submit_parts(batch) for batch in islice(remaining, 1))

    def _submit_parts(self, batch: Sequence[Draw]) -> list[Future[list[TrainingTriplet]]]:
        size = min(_MAX_SAMPLES_A_TASK, -(-len(batch) // self.num_workers))
        return [self.submit(batch[i : i + size]) for i in range(0, len(batch), size)]

    def close(self) -> None:
        """End the workers; samples that have not been drawn yet are not drawn."""
        self._pool.shutdown(cancel_futures=True)


def draw_all(drawer: SampleDrawer, draws: Sequence[Draw]) -> list[TrainingTriplet]:
    """Draw samples in this thread."""
    return [drawer.draw(box, variant) for box, variant in draws]


def _start_process(drawer: SampleDrawer) -> None:
    global _drawer
    exit_with_parent()
    cv2.setNumThreads(1)  # one process per core
    _drawer = drawer


def _draw_in_process(draws: Sequence[Draw]) -> list[TrainingTriplet]:
    assert _drawer is not None
    return draw_all(_drawer, draws)
