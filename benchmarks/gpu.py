"""Images/s and MFU of training on one GPU: from the latent cache and from JPEGs, by batch size, compiled or not.

    python benchmarks/gpu.py [--out gpu.json] [--batch-sizes 4 8 16 32 64] [--modes cached images] [--compile off on]

Needs no data: the weights are random, of Stable Diffusion's size, and images and latents are generated. Each row runs
the trainer itself with everything that it does in a step: prefetched batches, bf16 autocast, channels_last, fused
AdamW, gradient norm, moving average. MFU is the multiplications and additions that a step needs, without those that it
repeats, relative to the device's dense bf16 peak. Without a GPU, a tiny size runs on the CPU as a check of the script.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import polars as pl
import torch
from loader import HEIGHT, WIDTH, write_cache, write_images
from sizes import flops, machine, random_batch, random_painter
from transformers import CLIPVisionModelWithProjection

from pbe import layout
from pbe.dataset.curated_boxes import BOXES_FILE, read_curated_boxes
from pbe.dataset.image_shards import LOCATION
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.samples import SampleDrawer
from pbe.method.painter import Painter
from pbe.settings import load_settings
from pbe.training.batches import BatchSource, cached_source, fresh_source
from pbe.training.loop import Trainer
from pbe.training.painting_loss import PaintingLoss
from pbe.training.throughput import peak_tflops

SETTINGS = load_settings(Path(__file__).parents[1] / layout.PARAMS)


@dataclass(frozen=True)
class Plan:
    """The sizes to run: Stable Diffusion's on a GPU, a tiny one on a CPU."""

    size: str
    image_px: int
    device: str
    batch_sizes: list[int]
    warm: int
    steps: int


def write_project(folder: Path, painter: Painter, plan: Plan, count: int) -> None:
    """Write JPEGs, their boxes, the frozen encoders and a latent cache, as the stages do."""
    boxes = write_images(folder / "images", None, count)
    rows = [(b.box_id, b.image_id, b.split, *b.xyxy, *b.image) for b in boxes]
    columns = ["box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(folder / BOXES_FILE)
    painter.vae.save_pretrained(folder / "backbone/vae")
    CLIPVisionModelWithProjection(painter.conditioner.config).save_pretrained(folder / "backbone/image_encoder")
    side, width = plan.image_px // painter.latent_factor, painter.conditioner.config.hidden_size
    write_cache(folder / "latents", max(64, *plan.batch_sizes), 64, latent_px=side, token_width=width)


def count_flops(painter: Painter, folder: Path, plan: Plan) -> dict[str, float]:
    """Return the floating-point operations of one training image in each mode."""
    losses = PaintingLoss(painter).to(plan.device).train()
    batch = random_batch(painter, 1, plan.image_px).to(plan.device)
    cached = flops(lambda: losses(batch).mean().backward())
    losses.zero_grad(set_to_none=True)
    encoders = FrozenEncoders(folder / "backbone", plan.device)
    drawer = SampleDrawer(
        folder / "images",
        SETTINGS.method.replace(image_px=plan.image_px, close_up_probability=0.0),
        painter.exemplar_px,
        1,
        0,
    )
    sample = drawer.draw(read_curated_boxes(folder, "train")[0], 0)
    return {"cached": cached, "images": cached + flops(lambda: encoders.encode([sample]))}


def run_row(painter: Painter, folder: Path, plan: Plan, mode: str, batch_size: int, compiled: bool) -> dict[str, Any]:
    """Train for a few steps; return images/s, the seconds of the first step and the peak memory."""
    on_gpu = plan.device.startswith("cuda")
    train = SETTINGS.train.replace(
        use_gpu=on_gpu, num_workers=1, batch_size=batch_size, steps=10_000, lr=1e-5, decay="constant",
        precision="bf16" if on_gpu else "fp32", compile=compiled, loader_threads=min(16, os.cpu_count() or 1),
    )  # fmt: skip
    source: BatchSource
    if mode == "cached":
        source = cached_source(folder / "latents", train, 0)
    else:
        method = SETTINGS.method.replace(image_px=plan.image_px, close_up_probability=0.0)
        source = fresh_source(folder / "images", folder, folder / "backbone", method, train, 0, plan.device)
    trainer = Trainer(painter, source, train, 0, plan.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    trainer.run_step()
    first_s = time.perf_counter() - start
    for _ in range(plan.warm):
        trainer.run_step()
    start = time.perf_counter()  # a step ends with a number on the host, so no GPU work is pending
    for _ in range(plan.steps):
        trainer.run_step()
    took = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return {"images_per_s": plan.steps * batch_size / took, "first_step_s": first_s, "peak_gib": memory}


def sweep(painter: Painter, folder: Path, plan: Plan, modes: list[str], compiles: list[bool]) -> list[dict[str, Any]]:
    """Run and print all rows; a mode ends at the first batch size that does not fit into memory."""
    counts = count_flops(painter, folder, plan)
    name = torch.cuda.get_device_name() if plan.device.startswith("cuda") else machine()
    peak = peak_tflops(name)
    operations = ", ".join(f"{mode} {count / 1e9:,.3g}" for mode, count in counts.items())
    known = f"{peak:,.0f} TFLOP/s bf16" if peak else "unknown peak, no MFU"
    print(f"{name}; {known}; GFLOP a training image of {plan.image_px} px: {operations}")
    print(f"{'mode':<8}{'compiled':<10}{'batch':>5}{'images/s':>11}{'MFU':>7}{'peak GiB':>10}{'first step s':>14}")
    rows = []
    for compiled in compiles:  # a compiled UNet stays compiled, so the plain steps run first
        for mode in modes:
            for batch_size in plan.batch_sizes:
                row: dict[str, Any] = {"mode": mode, "compiled": compiled, "batch_size": batch_size}
                gc.collect()
                torch.cuda.empty_cache()
                try:
                    row |= run_row(painter, folder, plan, mode, batch_size, compiled)
                except torch.OutOfMemoryError:
                    print(f"{mode:<8}{compiled!s:<10}{batch_size:>5}   out of memory")
                    rows.append(row | {"out_of_memory": True})
                    break
                row["mfu"] = row["images_per_s"] * counts[mode] / (peak * 1e12) if peak else None
                mfu = f"{row['mfu']:.1%}" if row["mfu"] else "-"
                memory = f"{row['peak_gib']:.1f}" if row["peak_gib"] else "-"
                print(
                    f"{mode:<8}{compiled!s:<10}{batch_size:>5}{row['images_per_s']:>11.1f}{mfu:>7}{memory:>10}"
                    f"{row['first_step_s']:>14.1f}",
                    flush=True,
                )
                rows.append(row | {"device": name, "flops_per_image": counts[mode]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the rows as JSON")
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--modes", nargs="+", choices=["cached", "images"], default=["cached", "images"])
    parser.add_argument("--compile", nargs="+", choices=["off", "on"])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if torch.cuda.is_available():
        plan = Plan("sd", 512, "cuda", options.batch_sizes or [4, 8, 16, 32, 64], 3, options.steps)
        compiles = options.compile or ["off", "on"]
    else:
        torch.set_num_threads(1)
        plan = Plan("tiny", 64, "cpu", options.batch_sizes or [2], 0, 1)
        compiles = options.compile or ["off"]
    painter = random_painter(plan.size, plan.image_px)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, painter, plan, count=256 if plan.device == "cuda" else 4)
        rows = sweep(painter, folder, plan, options.modes, [kind == "on" for kind in sorted(compiles)])
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
    if plan.device == "cpu":
        print(f"no GPU: a tiny size ran on the CPU, from {WIDTH} x {HEIGHT} JPEGs and from the cache")


if __name__ == "__main__":
    main()
