"""Painting a whole bench: batches of cases over worker processes, results as files, what is there not painted again.

Small nets run faster in several processes of one thread than in one process of several. The batches are cut by the
place of a case in the bench, never by worker, so that the pixels do not depend on how many workers there are.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pbe.evaluation.bench import Bench, result_path, write_image
from pbe.method.close_up import cut_close_up, put_back
from pbe.method.exemplars import resize

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    from pbe.method.painter import Painter

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PaintJob:
    """Paint the first `num_cases` cases at one guidance scale into a folder of their own."""

    guidance_scale: float
    num_cases: int
    folder: Path


@dataclass(frozen=True)
class Sampling:
    """How every case is painted."""

    num_steps: int
    max_magnification: float  # see pbe.method.close_up
    seed: int


class Paint(Protocol):
    """Fulfils every job, `{id:012d}.png` each; `paint_cases` with its first and its named arguments bound."""

    def __call__(self, bench: Bench, jobs: Sequence[PaintJob], *, progress: Progress | None = None) -> None: ...


def paint_cases(
    painter_folder: Path,
    bench: Bench,
    jobs: Sequence[PaintJob],
    *,
    sampling: Sampling,
    batch_size: int,
    num_workers: int,
    progress: Progress | None = None,
) -> None:
    """Paint the jobs with the model of `painter_folder`, in `num_workers` processes of one thread each.

    A batch is painted again unless all of its results are there. Each case has a seed of its own, the same at every
    guidance scale. `progress` counts cases, those already there included. Raises what the painter raises.
    """
    batches = [(job, bench.ids[i : i + batch_size][: job.num_cases - i]) for job in jobs
               for i in range(0, min(job.num_cases, len(bench)), batch_size)]  # fmt: skip
    total = sum(len(ids) for _, ids in batches)
    todo = [(job, ids) for job, ids in batches if not all(result_path(job.folder, i).is_file() for i in ids)]
    done = total - sum(len(ids) for _, ids in todo)
    report = progress or _ignore
    report(done, total)
    if not todo:
        return
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    context = _context()
    with ProcessPoolExecutor(min(num_workers, len(todo)), mp_context=context, initializer=_start_worker) as pool:
        futures: list[Future[int]] = [
            pool.submit(paint_batch, painter_folder, bench, ids, job, sampling) for job, ids in todo
        ]
        try:
            for future in as_completed(futures):
                done += future.result()
                report(done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def paint_batch(painter_folder: Path, bench: Bench, ids: Sequence[int], job: PaintJob, sampling: Sampling) -> int:
    """Paint some cases of a bench, as `pbe edit` does, and write them into the job's folder; returns their number."""
    painter = _load_painter(painter_folder)
    cases = [bench.case(i) for i in ids]
    side = painter.exemplar_px
    closes = [cut_close_up(case.source, case.mask, painter.image_px, sampling.max_magnification) for case in cases]
    squares = painter.paint(
        np.stack([close.source for close in closes]),
        np.stack([close.mask for close in closes]),
        np.stack([resize(case.exemplar, side, side) for case in cases]),
        guidance_scale=job.guidance_scale,
        num_steps=sampling.num_steps,
        seeds=[case_seed(sampling.seed, i) for i in ids],
    )
    for case, close, square in zip(cases, closes, squares, strict=True):
        write_image(result_path(job.folder, case.id), put_back(case.source, case.mask, square, close.window))
    return len(ids)


def case_seed(seed: int, case_id: int) -> int:
    """The seed of one case's noise, 32 bits."""
    return int(np.random.SeedSequence([seed, case_id]).generate_state(1)[0])


@lru_cache(maxsize=1)
def _load_painter(folder: Path) -> "Painter":
    from pbe.method.painter import Painter

    return Painter.from_pretrained(folder)


def prepare() -> None:
    """Start to load the model's code, once for all workers and beside whatever this process does before it paints."""
    _context()
    multiprocessing.forkserver.ensure_running()


def _context() -> "ForkServerContext":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pbe.method.painter"])
    return context


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this worker when its parent is killed: the pool itself would leave it waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ignore(done: int, total: int) -> None:
    """No progress asked for."""
