"""The sections of `gpu.py`: each measures something that users run, and adds its rows to the report."""

import argparse
import gc
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from encode import measure as measure_encoding
from gpu_checks import check_losses, run_checks
from gpu_profile import print_profile
from gpu_project import ON_CPU, ON_GPU, Plan, Project
from gpu_report import Report, measure_peaks, timed_s
from sizes import flops, random_batch

from pbe.errors import UserError
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.method.painter import Painter
from pbe.training.loop import Trainer
from pbe.training.painting_loss import PaintingLoss

LORA_RANK = 16
COMPILE_S = 160.0  # of a UNet's blocks for one shape, on an H100 with 16 cores, without Inductor's cache
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
FAILURES = (
    RuntimeError,
    ImportError,
    UserError,
    TypeError,
    AttributeError,
    LookupError,
    ValueError,
    AssertionError,
    OSError,
)


def run_train(project: Project, report: Report) -> None:
    """Measure training from the latent cache at the first batch size, with compiled blocks."""
    report.heading("train", "from the latent cache, with average and clipping")
    train_row(project, report, "train", project.train(project.plan.batch_sizes[0]), count_training(project), COMPILE_S)


def run_sweep(project: Project, report: Report) -> None:
    """Measure training from the latent cache at the other batch sizes; compiling for each would take minutes."""
    others = project.plan.batch_sizes[1:]
    if others:
        report.heading("sweep", f"training at batch sizes {', '.join(map(str, others))}, without compiled blocks")
    for batch_size in others:
        train_row(project, report, "sweep", project.train(batch_size, compile=False), count_training(project), 15)


def run_images(project: Project, report: Report) -> None:
    """Measure training from JPEGs: drawing, VAE and CLIP in every step."""
    report.heading("images", "from JPEGs, without the cache")
    one = count_training(project) + count_encoding(project, 1)
    train_row(project, report, "images", project.train(project.plan.batch_sizes[0]), one, 60, cached=False)


def run_lora(project: Project, report: Report) -> None:
    """Measure training of adapters from the latent cache."""
    report.heading("lora", f"adapters of rank {LORA_RANK}, from the latent cache")
    one = count_training(project, LORA_RANK)
    train_row(project, report, "lora", project.train(1, lora_rank=LORA_RANK, compile=False), one, 20)
    train_row(project, report, "lora", project.train(8, lora_rank=LORA_RANK, compile=False), one, 20)


def train_row(
    project: Project,
    report: Report,
    section: str,
    train: Any,
    flops_of_one: float,
    needed_s: float,
    cached: bool = True,
) -> None:
    """Run some steps of a trainer and record images/s, or that the batch does not fit into memory."""
    plan = project.plan
    name = f"batch {train.batch_size}" + ", not compiled" * (plan.on_gpu and not train.compile)
    if not report.fits(section, name, needed_s if plan.on_gpu else 0):
        return
    with measured_memory(plan) as memory:
        try:
            trainer = project.trainer(train, cached)
            num_trained = sum(p.numel() for p in trainer.losses.trained().values())
            start = time.perf_counter()
            trainer.run_step()
            first_s = time.perf_counter() - start
            for _ in range(plan.warm):
                trainer.run_step()
            start = time.perf_counter()  # a step ends with a number on the host, so no GPU work is pending
            for _ in range(plan.steps):
                trainer.run_step()
            rate = plan.steps * train.batch_size / (time.perf_counter() - start)
        except torch.OutOfMemoryError:
            report.skip(section, name, "out of memory")
            return
    if not cached:
        trainer.source.pool.close()
    more = {"first_step_s": first_s, "trained_millions": num_trained / 1e6, **memory}
    report.rate(section, name, rate, "images/s", flops_of_one, **more)


def run_encode(project: Project, report: Report) -> None:
    """Measure encoding of samples with two exemplars each: drawn before, and drawn by processes meanwhile."""
    plan = project.plan
    report.heading("encode", "VAE and CLIP of samples with two exemplars")
    one, folder = count_encoding(project, 2), project.folder
    if not report.fits("encode", "bf16", 60 if plan.on_gpu else 0):
        return
    with measured_memory(plan) as memory:
        rates = measure_encoding(
            folder / "images", project.boxes, folder / "backbone", project.method, plan.device, "bf16",
            num_samples=plan.encoded, batch_size=64 if plan.on_gpu else 4, draw_workers=min(8, os.cpu_count() or 1),
        )  # fmt: skip
    more = {"start_s": rates["start_s"], "drawing_alone": rates["draw_samples_per_s"], **memory}
    report.rate("encode", "bf16, without drawing", rates["encode_samples_per_s"], "samples/s", one, **memory)
    report.rate("encode", "bf16, with drawing", rates["both_samples_per_s"], "samples/s", one, **more)


def run_edit(project: Project, report: Report) -> None:
    """Measure whole edits in each precision."""
    plan = project.plan
    report.heading("edit", f"{plan.edit_steps} steps, guidance 5, {plan.image_px} px; seconds a picture")
    one = count_edit(project)
    for kind in ("fp16", "bf16", "fp32") if plan.on_gpu else ("fp32", "bf16"):
        if not report.fits("edit", kind, 15 if plan.on_gpu else 0):
            continue
        painter = project.painter().eval().place(torch.device(plan.device), DTYPES[kind])
        for batch in plan.edit_batches:
            with measured_memory(plan) as memory:
                work = lambda painter=painter, batch=batch: paint(painter, plan, batch)  # noqa: E731
                took_s = timed_s(work, 3 if plan.on_gpu else 1, plan.device, warm=1 if plan.on_gpu else 0) / batch
            report.latency("edit", f"{kind}, batch {batch}", took_s, one, **memory)
        del painter


def paint(painter: Painter, plan: Plan, batch: int) -> Any:
    """Paint generated exemplars into generated pictures, each with a square mask."""
    rng = np.random.default_rng(0)
    size, side = plan.image_px, painter.exemplar_px
    sources = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    masks = np.zeros((batch, size, size), np.uint8)
    masks[:, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    exemplars = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    return painter.paint(sources, masks, exemplars, guidance_scale=5.0, num_steps=plan.edit_steps, seeds=range(batch))


def run_profile(project: Project, report: Report) -> None:
    """Print the longest kernels of a step at batch 32, compiled as a run would."""
    plan = project.plan
    report.heading("profile", "kernels of one training step")
    trainer: Trainer = project.trainer(project.train(plan.batch_sizes[0]))
    for _ in range(plan.warm + 1):
        trainer.run_step()
    kinds = print_profile(trainer.run_step, plan.on_gpu)
    report.rows.append({"section": "profile", "name": f"batch {trainer.train.batch_size}", "ms": kinds})


SECTIONS: dict[str, Callable[[Project, Report], None]] = {
    "checks": run_checks, "train": run_train, "images": run_images, "edit": run_edit, "encode": run_encode,
    "lora": run_lora, "losses": check_losses, "sweep": run_sweep,
}  # fmt: skip


@cache
def count_training(project: Project, lora_rank: int = 0) -> float:
    """Return the operations of a training image from the cache, forward and backward."""
    plan, painter = project.plan, project.painter(lora_rank)
    losses = PaintingLoss(painter).to(plan.device).train()
    batch = random_batch(painter, 1, plan.image_px).to(plan.device)
    return flops(lambda: losses(batch).mean().backward())


@cache
def count_encoding(project: Project, num_exemplars: int) -> float:
    """Return the operations of encoding a sample."""
    encoders = FrozenEncoders(project.folder / "backbone", project.plan.device)
    sample = project.drawer(num_exemplars).draw(project.boxes[0], 0)
    return flops(lambda: encoders.encode([sample]))


@cache
def count_edit(project: Project) -> float:
    """Return the operations of an edit; the painter is not placed, because the counter sees nothing in a CUDA graph."""
    painter = project.painter().eval().to(project.plan.device)
    return flops(lambda: paint(painter, project.plan, 1))


@contextmanager
def measured_memory(plan: Plan) -> Iterator[dict[str, float]]:
    """Give a dict that has the block's peak memory after it; free what earlier blocks left."""
    memory: dict[str, float] = {}
    gc.collect()
    if plan.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield memory
    if plan.on_gpu:
        memory["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        memory["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30


def main(description: str) -> None:
    """Run the sections that the command line names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="the sections to run")
    parser.add_argument("--seconds", type=float, default=480.0, help="skip what would not end within these")
    parser.add_argument("--out", type=Path, help="the rows as JSON, written after each row")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of training from the cache")
    parser.add_argument("--profile", action="store_true", help="print the kernels of one training step")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    plan = ON_GPU if torch.cuda.is_available() else ON_CPU
    if options.batch_sizes:
        plan = replace(plan, batch_sizes=options.batch_sizes)
    if not plan.on_gpu:
        torch.set_num_threads(1)
    start = time.perf_counter()
    report = Report(options.out, options.seconds, measure_peaks(plan.device), start=start)
    print(f"torch {torch.__version__}; {report.peaks}", flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), plan)
        print(f"[{report.elapsed_s:4.0f} s] random weights, {plan.num_images} JPEGs and a latent cache are written")
        runs = [SECTIONS[name] for name in SECTIONS if name in options.only]
        if options.profile:  # right after training, whose compiled blocks it shares
            runs.insert(runs.index(run_train) + 1 if run_train in runs else 0, run_profile)
        for section in runs:
            try:
                section(project, report)
            except FAILURES:  # the other sections still run: time on a GPU is dear
                failed = True
                traceback.print_exc()
    if not plan.on_gpu:
        print("\nno GPU: a tiny size ran on the CPU. Not measured: any speed or memory of a GPU, fp16, compiled blocks")
    if failed:
        raise SystemExit(1)
