"""Painting a whole bench: batches of cases over worker processes, results as files; existing results are kept.

Each GPU has one process. On a CPU, small networks run faster in several processes of one thread than in one process of
several. The cases of a batch depend on their place in the bench and not on the worker, so that the pixels are the same
for any number of workers.
"""

import multiprocessing
import multiprocessing.forkserver
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pbe.evaluation.bench import Bench, result_path, write_image
from pbe.method.exemplars import resize
from pbe.method.regions import Regions, cut_regions, find_regions, put_back_regions, region_seeds
from pbe.runtime.child_processes import exit_with_parent
from pbe.types import Progress, no_progress

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    from pbe.method.painter import Painter


@dataclass(frozen=True)
class PaintJob:
    """Paint the first `num_cases` cases of a bench at one guidance scale, into a separate folder."""

    guidance_scale: float
    num_cases: int
    folder: Path


@dataclass(frozen=True)
class Sampling:
    """How every case is painted."""

    num_steps: int
    max_magnification: float  # see pbe.method.close_up
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Placement:
    """Where cases are painted: `num_workers` processes on each of the devices, and the precision of their painters."""

    devices: tuple[str, ...]  # "cpu", or one or more of "cuda:0", "cuda:1", ...
    num_workers: int
    precision: str  # fp32, bf16 or fp16


class Paint(Protocol):
    """Completes jobs by writing `{id:012d}.png` for each case; `paint_cases` with its other arguments bound."""

    def __call__(self, bench: Bench, jobs: Sequence[PaintJob], *, progress: Progress = no_progress) -> None: ...


def paint_cases(
    painter_folder: Path,
    bench: Bench,
    jobs: Sequence[PaintJob],
    *,
    sampling: Sampling,
    placement: Placement,
    progress: Progress = no_progress,
) -> None:
    """Paint the jobs with the model in `painter_folder`, in processes of one thread each.

    The devices take the batches in turn. A batch is painted unless all of its results exist. Each case has its own
    seed, the same at every guidance scale.
    `progress` counts cases, including those that existed. Raises what the painter raises.
    """
    batches = [(job, ids) for job in jobs for ids in _batches(bench.ids[: job.num_cases], sampling.batch_size)]
    missing = [(job, ids) for job, ids in batches if not all(result_path(job.folder, i).is_file() for i in ids)]
    total = sum(len(ids) for _, ids in batches)
    done = total - sum(len(ids) for _, ids in missing)
    progress(done, total)
    if not missing:
        return
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        pools = [stack.enter_context(_pool(min(placement.num_workers, len(missing)))) for _ in placement.devices]
        turns = zip(missing, cycle(zip(pools, placement.devices, strict=True)))
        futures: list[Future[int]] = [
            pool.submit(paint_batch, painter_folder, bench, ids, job, sampling, device, placement.precision)
            for (job, ids), (pool, device) in turns
        ]
        try:
            for future in as_completed(futures):
                done += future.result()
                progress(done, total)
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


def _batches(ids: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    return [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]


def paint_batch(
    painter_folder: Path,
    bench: Bench,
    ids: Sequence[int],
    job: PaintJob,
    sampling: Sampling,
    device: str = "cpu",
    precision: str = "fp32",
) -> int:
    """Paint cases of a bench as `pbe edit` does, write the results into the job's folder, and return their number."""
    painter = _load_painter(painter_folder, device, precision)
    cases = [bench.case(i) for i in ids]
    side = painter.exemplar_px
    regions = [find_regions(case.mask, painter.image_px, sampling.max_magnification) for case in cases]
    cuts = [cut_regions(case.source, each, painter.image_px) for case, each in zip(cases, regions, strict=True)]
    counts = [len(each) for each in cuts]
    squares = painter.paint(
        np.stack([cut.source for each in cuts for cut in each]),
        np.stack([cut.mask for each in cuts for cut in each]),
        np.repeat(np.stack([resize(case.exemplar, side, side) for case in cases]), counts, axis=0),
        guidance_scale=job.guidance_scale,
        num_steps=sampling.num_steps,
        seeds=[seed for i, each in zip(ids, regions, strict=True) for seed in _seeds(sampling, i, each)],
    )
    painted = np.split(squares, np.cumsum(counts)[:-1])
    for case, each, own in zip(cases, regions, painted, strict=True):
        write_image(result_path(job.folder, case.id), put_back_regions(case.source, each, list(own)))
    return len(ids)


def _seeds(sampling: Sampling, case_id: int, regions: Regions) -> list[int]:
    return region_seeds(case_seed(sampling.seed, case_id), regions)


def case_seed(seed: int, case_id: int) -> int:
    """Return the seed, 32 bits, of one case's noise."""
    return int(np.random.SeedSequence([seed, case_id]).generate_state(1)[0])


@lru_cache(maxsize=1)
def _load_painter(folder: Path, device: str, precision: str) -> "Painter":
    import torch

    from pbe.method.painter import Painter
    from pbe.runtime.devices import DTYPES

    return Painter.from_pretrained(folder).place(torch.device(device), DTYPES[precision])


def prepare() -> None:
    """Start to load the model's code in the background, once for all workers, while this process prepares the bench."""
    _context()
    multiprocessing.forkserver.ensure_running()


def _pool(num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, mp_context=_context(), initializer=_start_worker)


def _context() -> "ForkServerContext":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pbe.method.painter"])
    return context


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with_parent(parent.join)  # a pool whose process is killed leaves its workers waiting forever
