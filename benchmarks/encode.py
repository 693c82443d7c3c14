"""Samples/s of encoding on one device: drawing alone, encoding alone, and both as the encode stage does, without Ray.

    python benchmarks/encode.py [--samples 1024] [--batch-size 64] [--draw-workers 8] [--precision bf16] [--size sd]

Needs no data: the weights are random, of Stable Diffusion's size on a GPU, and the JPEGs are generated. The stage's own
classes run: a pool of processes that draw, and the frozen encoders that take their batches. Also prints how far latents
and class tokens in bf16 are from those in fp32, beside what the cache's fp16 loses: the largest difference and the root
mean square, both relative to the root mean square of fp32. Without a GPU, a tiny size runs on the CPU as a check.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch
from loader import write_images
from sizes import machine, random_conditioner, random_vae
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from pbe import layout
from pbe.dataset.curated_boxes import CuratedBox
from pbe.latents.drawing import DrawingPool, draw_all
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.samples import SampleDrawer
from pbe.method.training_triplet import TrainingTriplet
from pbe.runtime.devices import DTYPES
from pbe.settings import Method, load_settings

SETTINGS = load_settings(Path(__file__).parents[1] / layout.PARAMS)


def write_encoders(folder: Path, size: str) -> None:
    """Write a random VAE and CLIP tower as the stage `backbone` does."""
    random_vae(size).save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(random_conditioner(size).config).save_pretrained(folder / "image_encoder")


def measure(
    images: Path,
    boxes: Sequence[CuratedBox],
    backbone: Path,
    method: Method,
    device: str,
    precision: str = "bf16",
    *,
    num_samples: int = 1024,
    num_exemplars: int = 2,
    batch_size: int = 64,
    draw_workers: int = 8,
) -> dict[str, float]:
    """Return samples/s of drawing (in `draw_workers` processes), of encoding, and of both; and seconds of the start.

    The VAE's blocks are compiled on a GPU. `num_samples` are drawn from the boxes in turn, as variants of them.
    """
    start = time.perf_counter()
    on_gpu = device.startswith("cuda")
    encoders = FrozenEncoders(backbone, device, dtype=DTYPES[precision], compiled=on_gpu, batch_size=batch_size)
    drawer = SampleDrawer(images, method, encoders.conditioner.exemplar_px, num_exemplars, 0)
    pool = DrawingPool(drawer, draw_workers, processes=True)
    draws = [(boxes[i % len(boxes)], i // len(boxes)) for i in range(num_samples)]
    batches = [draws[i : i + batch_size] for i in range(0, num_samples, batch_size)]
    drawn = list(pool.draw_batches(batches[:2]))  # starts the processes
    encoders.encode(drawn[0])  # compiles
    start_s = time.perf_counter() - start

    def rate(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return num_samples / (time.perf_counter() - begin)

    rates = {
        "draw": rate(lambda: [len(batch) for batch in pool.draw_batches(batches)]),
        "encode": rate(lambda: list(encoders.encode_all(drawn[i % len(drawn)] for i in range(len(batches))))),
        "both": rate(lambda: list(encoders.encode_all(pool.draw_batches(batches)))),
    }
    pool.close()
    return {f"{name}_samples_per_s": value for name, value in rates.items()} | {"start_s": start_s}


def measure_rounding(backbone: Path, samples: Sequence[TrainingTriplet], device: str) -> dict[str, dict[str, float]]:
    """Return how far encodings in bf16, and in fp32 stored as fp16, are from fp32, for each tensor.

    The differences' largest and root mean square are relative to the root mean square of fp32.
    """
    exact, bf16 = (
        {
            name: tensor.float()
            for name, tensor in FrozenEncoders(backbone, device, dtype=dtype).encode_unrounded(samples).items()
        }
        for dtype in (torch.float32, torch.bfloat16)
    )
    result = {}
    for name in ("source_latents", "masked_latents", "class_tokens"):
        wanted, scale = exact[name], rms(exact[name])
        differences = {"bf16": bf16[name] - wanted, "fp16_storage": wanted.half().float() - wanted}
        result[name] = {f"{kind}_rms": rms(d) / scale for kind, d in differences.items()} | {
            f"{kind}_max": float(d.abs().max()) / scale for kind, d in differences.items()
        }
    return result


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["sd", "tiny"], default="sd" if on_gpu else "tiny")
    parser.add_argument("--backbone", type=Path, metavar="FOLDER", help="use the VAE and the tower of this folder")
    parser.add_argument("--image-px", type=int, help="default: 512, or 64 for the tiny size")
    parser.add_argument("--samples", type=int, default=1024 if on_gpu else 32)
    parser.add_argument("--batch-size", type=int, default=64 if on_gpu else 8)
    parser.add_argument("--draw-workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--rounding-samples", type=int, default=4, help="samples to compare in bf16 and fp32; 0: none")
    parser.add_argument("--out", type=Path, help="the numbers as JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if not on_gpu:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        result = run(Path(temporary), options, "cuda" if on_gpu else "cpu")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    if not on_gpu:
        print("no GPU: its rate, compiled blocks and copies that overlap were not measured")


def run(folder: Path, options: argparse.Namespace, device: str) -> dict[str, object]:
    """Write what is read to `folder`, measure, print and return the numbers."""
    image_px = options.image_px or (512 if options.size == "sd" else 64)
    method = SETTINGS.method.replace(image_px=image_px, close_up_probability=0.0)
    images, backbone = folder / "images", options.backbone or folder / "backbone"
    boxes = write_images(images, None, 64 if device == "cuda" else 16)
    if not options.backbone:
        write_encoders(backbone, options.size)
    name = torch.cuda.get_device_name() if device == "cuda" else machine()
    encoders = options.backbone or f"size {options.size}"
    result: dict[str, object] = {"device": name, "encoders": str(encoders), "image_px": image_px}
    print(f"{name}; encoders of {encoders} in {options.precision}, {image_px} px, two exemplars")
    if options.samples:
        rates = measure(
            images, boxes, backbone, method, device, options.precision,
            num_samples=options.samples, batch_size=options.batch_size, draw_workers=options.draw_workers,
        )  # fmt: skip
        for key, rate in rates.items():
            print(f"{key:<20} {rate:10.1f}")
        result |= rates
    if options.rounding_samples:
        drawer = SampleDrawer(images, method, FrozenEncoders(backbone).conditioner.exemplar_px, 2, 0)
        samples = draw_all(drawer, [(box, 0) for box in boxes[: options.rounding_samples]])
        result["rounding"] = rounding = measure_rounding(backbone, samples, device)
        for tensor, row in rounding.items():
            print(
                f"{tensor:<15} from fp32, relative: bf16 rms {row['bf16_rms']:.1e} max {row['bf16_max']:.1e}; "
                f"fp16 storage rms {row['fp16_storage_rms']:.1e} max {row['fp16_storage_max']:.1e}"
            )
    return result


if __name__ == "__main__":
    main()
