"""Windows of several jobs that are painted in one call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pbe.serving.editor import Editor, PaintWindow
from pbe.serving.service.jobs import Job, Work
from pbe.types import Image


@dataclass(frozen=True)
class Task:
    """One window of a job."""

    job: Job
    work: Work
    number: int

    @property
    def window(self) -> PaintWindow:
        return self.work.window(self.number)


class Batch:
    """Windows of one group, with the callbacks of `Editor.paint`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def editor(self) -> Editor:
        return self.tasks[0].work.loaded.editor

    @property
    def num_steps(self) -> int:
        return self.tasks[0].work.edit.options.num_steps

    @property
    def windows(self) -> list[PaintWindow]:
        return [task.window for task in self.tasks]

    @property
    def works(self) -> dict[Job, Work]:
        """Each job with its work, once."""
        return {task.job: task.work for task in self.tasks}

    @property
    def wants_previews(self) -> bool:
        return any(task.work.on_preview for task in self.tasks)

    def all_ended(self) -> bool:
        """Return whether no job needs this batch any more."""
        return all(task.job.ended for task in self.tasks)

    def report(self, done: int, total: int, note: str = "") -> None:
        """Record how many steps are done."""
        for task in self.tasks:
            task.work.fractions[task.number] = done / total

    def set_previews(self, squares: Sequence[Image]) -> None:
        """Record how the windows would look now."""
        for task, square in zip(self.tasks, squares, strict=True):
            task.work.previews[task.number] = square

    def set_squares(self, squares: Sequence[Image]) -> None:
        """Record the painted windows."""
        for task, square in zip(self.tasks, squares, strict=True):
            task.work.squares[task.number] = square
            task.work.fractions[task.number] = 1.0

    def split(self) -> Iterator["Batch"]:
        """Yield a batch for each window."""
        return (Batch([task]) for task in self.tasks)
