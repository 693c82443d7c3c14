"""Painting a whole bench: batches of cases over worker processes, results as files; existing results are kept.

Each GPU has one process. On a CPU, small networks run faster in several processes of one thread than in one process of
several. The pixels of a case depend neither on the worker nor on the other cases of its batch (`windows`).
"""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pbe.evaluation.benches.bench import Bench, result_path
from pbe.evaluation.names import METHOD
from pbe.evaluation.painting.keys import case_digests, keep_results, picture_key, write_painted
from pbe.evaluation.painting.methods import (
    PAINTED_METHODS,
    Models,
    Texts,
    check_methods,
    recipe_of,
    texts_of,
)
from pbe.evaluation.painting.windows import CasePainter, PaintSettings, Request
from pbe.runtime.child_processes import exit_with_parent
from pbe.types import Progress, no_progress

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

CPU_CALL_SIZE = 8  # squares in a call of the model on a CPU: a larger call is no faster


@dataclass(frozen=True)
class PaintJob:
    """Paint the first `num_cases` cases of a bench with a method at one guidance scale, into a separate folder."""

    guidance_scale: float
    num_cases: int
    folder: Path
    method: str = METHOD
    draw: int = 0  # which noise of a case; diversity compares several


@dataclass(frozen=True)
class Sampling:
    """How every case is painted."""

    sampler: str  # one of pbe.method.sampling.SAMPLERS
    num_steps: int
    guidance_interval: tuple[float, float] | None  # see pbe.method.guidance
    max_magnification: float  # see pbe.method.close_up
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Placement:
    """Where cases are painted: `num_workers` processes on each of the devices, and the precision of their painters."""

    devices: tuple[str, ...]  # "cpu", or one or more of "cuda:0", "cuda:1", ...
    num_workers: int
    precision: str  # fp32, bf16 or fp16


class Painting(NamedTuple):
    """A picture to be painted."""

    case_id: int
    seed: int
    text: str
    path: Path
    key: str


class Task(NamedTuple):
    """The pictures that a worker paints at once, all with one method at one guidance scale."""

    method: str
    guidance_scale: float
    pictures: tuple[Painting, ...]


def paint_cases(
    models: Models,
    bench: Bench,
    jobs: Sequence[PaintJob],
    *,
    sampling: Sampling,
    placement: Placement,
    class_names: Texts = MappingProxyType({}),
    progress: Progress = no_progress,
) -> None:
    """Paint the jobs with the models, in processes of one thread each; the devices take turns.

    The folders of all jobs have one parent, which afterwards holds the pictures of these jobs and no others. A picture
    is painted unless one with the same key exists (`keys`). Each case has its own seed, the same for every
    method and at every guidance scale. `class_names` are those of exemplars that the bench does not say, by case id.
    `progress` counts pictures, including those that existed. Raises what loading a model raises, and UserError when a
    method cannot paint the bench.
    """
    check_methods({job.method for job in jobs}, bench, models, class_names)
    settings = paint_settings(sampling, placement)
    paintings = plan_pictures(models, bench, jobs, sampling.seed, settings, class_names)
    wanted = {picture.path: picture.key for pictures in paintings.values() for picture in pictures}
    missing = keep_results(jobs[0].folder.parent, wanted)
    tasks = [task for job, pictures in paintings.items() for task in _tasks(job, pictures, missing, sampling, settings)]
    done, total = len(wanted) - len(missing), len(wanted)
    progress(done, total)
    if not tasks:
        return
    with ExitStack() as stack:
        pools = [stack.enter_context(_pool(min(placement.num_workers, len(tasks)))) for _ in placement.devices]
        turns = zip(tasks, cycle(zip(pools, placement.devices, strict=True)))
        futures: list[Future[int]] = [
            pool.submit(paint_task, models, bench, task, paint_settings(sampling, placement, device))
            for task, (pool, device) in turns
        ]
        try:
            for future in as_completed(futures):
                done += future.result()
                progress(done, total)
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)


def paint_settings(sampling: Sampling, placement: Placement, device: str | None = None) -> PaintSettings:
    """Return how a model paints on a device, by default the first of the placement."""
    device = device or placement.devices[0]
    call_size = CPU_CALL_SIZE if device == "cpu" else sampling.batch_size
    return PaintSettings(
        device,
        placement.precision,
        sampling.sampler,
        sampling.num_steps,
        sampling.guidance_interval,
        sampling.max_magnification,
        call_size,
    )


def plan_pictures(
    models: Models,
    bench: Bench,
    jobs: Sequence[PaintJob],
    seed: int,
    settings: PaintSettings,
    class_names: Texts = MappingProxyType({}),
) -> dict[PaintJob, list[Painting]]:
    """Return the pictures of every job, with their seeds, texts and keys."""
    digests = case_digests(bench, bench.ids[: max(job.num_cases for job in jobs)])
    methods = {job.method for job in jobs}
    recipes = {method: recipe_of(method, models, settings) for method in methods}
    texts = {method: texts_of(method, bench, class_names) for method in methods}
    return {job: _plan(job, bench, digests, recipes[job.method], texts[job.method], seed) for job in jobs}


def _plan(
    job: PaintJob,
    bench: Bench,
    digests: Mapping[int, str],
    recipe: Mapping[str, object],
    texts: Mapping[int, str],
    seed: int,
) -> list[Painting]:
    pictures = []
    for case_id in bench.ids[: job.num_cases]:
        noise, text = case_seed(seed, case_id, job.draw), texts.get(case_id, "")
        key = picture_key(
            {**recipe, "guidance_scale": job.guidance_scale, "seed": noise, "text": text, "case": digests[case_id]}
        )
        pictures.append(Painting(case_id, noise, text, result_path(job.folder, case_id), key))
    return pictures


def _tasks(
    job: PaintJob,
    pictures: Sequence[Painting],
    missing: Mapping[Path, str],
    sampling: Sampling,
    settings: PaintSettings,
) -> list[Task]:
    left = [picture for picture in pictures if picture.path in missing]
    size = max(sampling.batch_size, settings.call_size)
    return [
        Task(job.method, job.guidance_scale, tuple(left[start : start + size])) for start in range(0, len(left), size)
    ]


def paint_task(models: Models, bench: Bench, task: Task, settings: PaintSettings) -> int:
    """Paint the pictures of a task, write them with their keys, and return their number."""
    painter = _load(task.method, models, settings)
    requests = [Request(bench.case(picture.case_id), picture.seed, picture.text) for picture in task.pictures]
    for picture, image in zip(task.pictures, painter(requests, task.guidance_scale), strict=True):
        write_painted(picture.path, image, picture.key)
    return len(task.pictures)


def case_seed(seed: int, case_id: int, draw: int = 0) -> int:
    """Return the seed, 32 bits, of one case's noise; each draw has another."""
    return int(np.random.SeedSequence([seed, case_id, draw]).generate_state(1)[0])


@lru_cache(maxsize=1)
def _load(method: str, models: Models, settings: PaintSettings) -> CasePainter:
    return PAINTED_METHODS[method].load(models, settings)


def prepare() -> None:
    """Start to load the model's code in the background, once for all workers, while this process prepares the bench."""
    _context()
    multiprocessing.resource_tracker.ensure_running()  # unblocks SIGINT when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C would print where it interrupts an import
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _pool(num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, mp_context=_context(), initializer=_start_worker)


def _context() -> "ForkServerContext":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pbe.method.painter"])
    return context


def _start_worker() -> None:
    import torch
    from transformers.utils import logging

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # of loading weights
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with_parent(parent.join)  # a pool whose process is killed leaves its workers waiting forever
