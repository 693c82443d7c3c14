"""A painting in bf16 against fp32 on this machine's device: seconds, and how far the pictures are apart.

    .venv/bin/python benchmarks/precision.py [--model models/pbe] [--batches 1 8] [--num-steps 50] [--threads 2]

Both precisions paint the same scenes of the demo world with the same noise. Without a model, the bundled tiny parts
paint, as training starts with them. Prints seconds and differences and asserts nothing about them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from sizes import machine, medians_s

from pbe.demo.scenes import draw_scene
from pbe.method.initialization import build_painter
from pbe.method.painter import Images, Painter
from pbe.runtime.devices import DTYPES, choose_device

TINY = Path(__file__).parents[1] / "data" / "tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device, "--device")
    painters = {name: load(options.model).place(device, DTYPES[name]) for name in ("fp32", "bf16")}
    print(machine())
    for size in options.batches:
        compare(painters, size, options.num_steps, options.repeats)


def load(model: Path | None) -> Painter:
    return Painter.from_pretrained(model) if model else build_painter(TINY, 64, 0)


def compare(painters: dict[str, Painter], size: int, num_steps: int, repeats: int) -> None:
    """Paint a batch in each precision, and print the seconds and the difference of painted pixels in grey levels."""
    sources, masks, exemplars = scenes(size, painters["fp32"])
    guidance_scale = 5.0 if painters["fp32"].conditioner.guidance else 1.0
    painted: dict[str, Images] = {}

    def paint(name: str) -> None:
        painted[name] = painters[name].paint(
            sources, masks, exemplars, guidance_scale=guidance_scale, num_steps=num_steps, seeds=range(size)
        )

    took = medians_s({name: (lambda name=name: paint(name)) for name in painters}, repeats)
    embedded = [painter.conditioner.embed(np.concatenate([sources, painted["fp32"]])) for painter in painters.values()]
    clip_score = 100 * np.abs(embedded[0] @ embedded[0].T - embedded[1] @ embedded[1].T).max()
    inside = masks == 1
    difference = np.abs(painted["fp32"].astype(int) - painted["bf16"])[inside]
    seconds = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
    outside = (painted["bf16"] == sources)[~inside].all()
    print(
        f"batch {size}, {num_steps} steps: {seconds}; painted pixels differ by {difference.mean():.2f} of 255 on "
        f"average, at most by {difference.max()}; outside the mask {'equal' if outside else 'CHANGED'}; "
        f"CLIP scores in bf16 would move by up to {clip_score:.2f}",
        flush=True,
    )


def scenes(size: int, painter: Painter) -> tuple[Images, Images, Images]:
    """Return scenes with a square to repaint in the middle, and an object of another scene as each exemplar."""
    rng, side = np.random.default_rng(0), painter.image_px
    sources, exemplars = [], []
    for _ in range(size):
        source, other = (draw_scene(rng, max_objects=2, rare_kinds=False) for _ in range(2))
        x0, y0, x1, y1 = other.objects[0].box
        sources.append(cv2.resize(source.image, (side, side), interpolation=cv2.INTER_AREA))
        exemplars.append(cv2.resize(other.image[y0:y1, x0:x1], (painter.exemplar_px, painter.exemplar_px)))
    masks = np.zeros((size, side, side), np.uint8)
    masks[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return np.stack(sources), masks, np.stack(exemplars)


if __name__ == "__main__":
    main()
