"""A queue that serves its owners in rotation, and the choice of windows that are painted together."""

from collections import OrderedDict, deque
from collections.abc import Iterator

from pbe.serving.service.batches import Batch, Task
from pbe.serving.service.jobs import Job


class FairQueue:
    """Jobs, first in first out for each owner; `rotation` has the owner who is served next in front.

    The caller holds a lock.
    """

    def __init__(self) -> None:
        self._rotation: OrderedDict[str, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._rotation.values())

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._rotation.values() for job in jobs)

    def add(self, job: Job) -> None:
        self._rotation.setdefault(job.owner, deque()).append(job)

    def remove(self, job: Job) -> None:
        """Remove a job, if it is in the queue."""
        jobs = self._rotation.get(job.owner, ())
        if job in jobs:
            self._rotation[job.owner].remove(job)
            if not jobs:
                del self._rotation[job.owner]

    def pop(self) -> Job:
        """Remove and return the next owner's first job; that owner is then the last in the rotation."""
        owner, jobs = next(iter(self._rotation.items()))
        job = jobs[0]
        self._rotation.move_to_end(owner)
        self.remove(job)
        return job

    def head(self) -> Job | None:
        """Return the next owner's first job."""
        return next(iter(self._rotation.values()))[0] if self._rotation else None

    def position(self, job: Job) -> int:
        """Return how many jobs are served up to this one; 0 when it is not in the queue."""
        jobs = self._rotation.get(job.owner, deque())
        if job not in jobs:
            return 0
        index, before, ahead = jobs.index(job), 1, 0
        for owner, others in self._rotation.items():
            if owner == job.owner:
                before = 0
            else:
                ahead += min(len(others), index + before)
        return index + 1 + ahead

    def batch(self, most: int) -> Batch:
        """Return the windows to paint next, at most `most`, which stay in the queue.

        The next owner's first job has the first window, and each owner adds one window of the same group in rotation:
        an owner with many windows gets what the others leave.
        """
        first = self.head()
        assert first is not None
        assert first.work is not None
        group = first.work.group(first.work.pending[0])
        offers = [iter(_tasks(jobs, group)) for jobs in self._rotation.values()]
        tasks: list[Task] = []
        while offers and len(tasks) < most:
            offer = offers.pop(0)
            if task := next(offer, None):
                tasks.append(task)
                offers.append(offer)
        return Batch(tasks)

    def take(self, batch: Batch) -> None:
        """Remove a batch's windows, and the jobs that have no further one; its first owner is then the last."""
        for task in batch.tasks:
            task.work.pending.remove(task.number)
        self._rotation.move_to_end(batch.tasks[0].job.owner)
        for task in batch.tasks:
            if not task.work.pending:
                self.remove(task.job)


def _tasks(jobs: deque[Job], group: object) -> Iterator[Task]:
    for job in jobs:
        if job.work is not None:
            for number in job.work.pending:
                if job.work.group(number) == group:
                    yield Task(job, job.work, number)
