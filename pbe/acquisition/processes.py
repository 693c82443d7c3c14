"""Processes that read and decode files, for work that one interpreter would do on one core.

Results come in the order of the jobs, so that a run in processes gives the same bits, counts and errors as one without.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

import cv2

from pbe.runtime.child_processes import exit_with_parent

Job = TypeVar("Job")
Done = TypeVar("Done")

_PENDING = 8  # jobs for each process that are started and not yet taken


def num_processes(num_jobs: int, min_jobs: int) -> int:
    """Return a process for each core, or 1 for fewer than `min_jobs` jobs: starting processes takes seconds."""
    return len(os.sched_getaffinity(0)) if num_jobs >= min_jobs else 1


@contextmanager
def process_pool(size: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; they end with the block, and with this process. Ctrl-C reaches this process alone."""
    pool = ProcessPoolExecutor(size, get_context("spawn"), _start_process)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(size):
            pool.submit(int)  # starts a process while none is idle; it inherits the blocked signal
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_process() -> None:
    exit_with_parent()
    cv2.setNumThreads(1)  # one process per core


def map_in_order(
    submit: Callable[[Job], "Future[Done]"], jobs: Iterable[Job], max_pending: int
) -> Generator[Done, None, None]:
    """Yield the result of each job, in order; at most `max_pending` jobs are started and not yet yielded."""
    pending: deque[Future[Done]] = deque()
    for job in jobs:
        pending.append(submit(job))
        if len(pending) == max_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def map_in_processes(work: Callable[[Job], Done], jobs: Sequence[Job], min_jobs: int) -> Generator[Done, None, None]:
    """Yield `work(job)` for each job, in order: in a process for each core when there are at least `min_jobs` jobs."""
    size = num_processes(len(jobs), min_jobs)
    if size == 1:
        yield from map(work, jobs)
        return
    with process_pool(size) as pool:
        yield from map_in_order(lambda job: pool.submit(work, job), jobs, _PENDING * size)
