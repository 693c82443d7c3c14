"""What the painter makes of several exemplars of one object, and of exemplars with a mask (docs/editing.md).

    .venv/bin/python benchmarks/exemplars.py several --project projects/photo [--per-clip 1] [--num-steps 8]
    .venv/bin/python benchmarks/exemplars.py fills --project projects/photo

`several` paints cases of a bench whose boxes have clips, with one, two and four frames of the exemplar's clip, whose
tokens are averaged before or after the MLP. Identity is the cosine, times 100, of the painted box with the frames of
the clip that no exemplar shows, by EfficientNet-Lite0. Prints each mean and its difference from one exemplar, with
intervals of 95 % over clips. `fills` compares what can be put in the place of an exemplar's background: the cosine of
the condition with that of the unmasked exemplar, over a frame of each clip, whose object GrabCut finds (Rother et al.,
2004).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pbe import layout
from pbe.dataset.image_shards import ImageRef, ImageShards
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.local import EFFICIENTNET, open_identity_encoder
from pbe.evaluation.metrics.identity import crop
from pbe.method.close_up import cut_close_up, put_back
from pbe.method.conditioner import to_pixels
from pbe.method.exemplars import crop_exemplar, resize
from pbe.method.painter import Painter
from pbe.method.windows import mask_box
from pbe.runtime.devices import choose_device, choose_precision
from pbe.types import Image, Mask

ROOT = Path(__file__).parents[1]
COUNTS = (2, 4)
NUM_SCORED = 4  # frames of the clip that no exemplar shows
PAD_FRAC = 0.1
WIDE_FRAC, GRABCUT_PX = 0.25, 192
DRAWS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("several", "fills"))
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "data" / "photo-painter")
    parser.add_argument("--per-clip", type=int, default=1)
    parser.add_argument("--num-steps", type=int, default=8)
    options = parser.parse_args()
    device = choose_device("cpu")
    painter = Painter.from_pretrained(options.model).place(device, choose_precision("auto", device))
    if options.what == "fills":
        return compare_fills(painter, options.project)
    compare_numbers(painter, options.project, options.per_clip, options.num_steps)


def compare_numbers(painter: Painter, project: Path, per_clip: int, num_steps: int) -> None:
    """Paint with one and several exemplars, and print identity."""
    frames = _frames_of_clips(project)
    bench = read_bench(project / layout.BENCH)
    assert bench.origins is not None
    clip_of = {box: clip for clip, boxes in frames.items() for box in boxes}
    rows = pl.read_parquet(project / layout.CURATED / "boxes.parquet").rows_by_key("box_id", named=True, unique=True)
    encoder = open_identity_encoder(EFFICIENTNET)
    assert encoder is not None
    scores: dict[str, list[float]] = {}
    clips: list[str] = []
    taken: dict[str, int] = {}
    for origin in bench.origins:
        clip = clip_of[origin.exemplar_box_id]
        if taken.get(clip, 0) == per_clip or len(frames[clip]) < max(COUNTS) + NUM_SCORED:
            continue
        taken[clip] = taken.get(clip, 0) + 1
        clips.append(clip)
        others = [box for box in frames[clip] if box != origin.exemplar_box_id]
        spread = [others[i] for i in np.linspace(0, len(others) - 1, max(COUNTS) - 1 + NUM_SCORED).astype(int)]
        shown = [origin.exemplar_box_id, *spread[1::2][: max(COUNTS) - 1]]
        scored = [box for box in spread if box not in shown][:NUM_SCORED]
        crops = {box: _crop(project, rows[box], PAD_FRAC, painter.exemplar_px) for box in (*shown, *scored)}
        case = bench.case(origin.case_id)
        wanted = F.normalize(_features(encoder, [crops[box] for box in scored]), dim=-1)
        close = cut_close_up(case.source, case.mask, painter.image_px)
        for name, context in _contexts(painter, [crops[box] for box in shown]).items():
            (square,) = painter.paint_context(
                close.source[None], close.mask[None], context, painter.conditioner.uncond_vector, guidance_scale=5.0,
                num_steps=num_steps, seeds=[origin.case_id], sampler="dpm++2m",
            )  # fmt: skip
            painted = crop(put_back(case.source, case.mask, square, close.window), mask_box(case.mask))
            (feature,) = F.normalize(_features(encoder, [painted]), dim=-1)
            scores.setdefault(name, []).append(100 * float((wanted @ feature).mean()))
    _print(scores, np.unique(clips, return_inverse=True)[1])


def _contexts(painter: Painter, exemplars: list[Image]) -> dict[str, Tensor]:
    """Return the context of the first exemplar, and of the first two and four by each kind of mean."""
    conditioner = painter.conditioner
    with torch.inference_mode():
        contexts = {"one exemplar": conditioner.describe(exemplars[0])}
        for count in COUNTS:
            pixels = to_pixels(np.stack(exemplars[:count]), painter.exemplar_px)
            contexts[f"{count} exemplars, mean before the MLP"] = conditioner(conditioner.tokens(pixels).mean(0, True))
            contexts[f"{count} exemplars, mean after the MLP"] = conditioner.describe(np.stack(exemplars[:count]))
    return contexts


def _frames_of_clips(project: Path) -> dict[str, list[str]]:
    boxes = pl.read_parquet(project / layout.CURATED / "boxes.parquet").filter(pl.col("split") == "validation")
    grouped = boxes.sort("box_id").group_by("group").agg(pl.col("box_id"))
    return {str(clip): list(ids) for clip, ids in grouped.sort("group").iter_rows()}


def _crop(project: Path, row: dict[str, Any], pad_frac: float, side: int) -> Image:
    shards = ImageShards(project / layout.RAW / "images")
    image = shards.read_image(ImageRef(row["shard"], row["offset"], row["num_bytes"]))
    return crop_exemplar(image, (row["x0"], row["y0"], row["x1"], row["y1"]), pad_frac, side)


def _features(encoder: object, images: list[Image]) -> Tensor:
    return torch.from_numpy(np.asarray(encode_batch(encoder, images)))  # type: ignore[arg-type]


def _print(scores: dict[str, list[float]], clips: NDArray[np.int64]) -> None:
    """Print means and differences, with intervals over clips."""
    rng = np.random.default_rng(0)
    weights = np.stack([np.bincount(rng.integers(0, clips.max() + 1, clips.max() + 1), minlength=clips.max() + 1)
                        for _ in range(DRAWS)])[:, clips]  # fmt: skip
    base = np.array(scores["one exemplar"])
    print(f"{len(base)} cases, exemplars of {clips.max() + 1} clips")
    for name, values in scores.items():
        parts = []
        for each in (np.array(values), np.array(values) - base):
            low, high = np.quantile((weights * each).sum(1) / weights.sum(1), [0.025, 0.975])
            parts.append(f"{each.mean():.1f} [{low:.1f}, {high:.1f}]")
        print(f"| {name} | {parts[0]} | {parts[1]} |")


def compare_fills(painter: Painter, project: Path) -> None:
    """Print the cosine of the context of a masked exemplar with that of the unmasked exemplar, for each fill."""
    rows = pl.read_parquet(project / layout.CURATED / "boxes.parquet").rows_by_key("box_id", named=True, unique=True)
    fills: dict[str, Callable[[Image, Mask], NDArray[np.uint8]]] = {
        "white": lambda image, mask: np.full(3, 255, np.uint8),
        "mid-grey": lambda image, mask: np.full(3, 127, np.uint8),
        "mean of the object": lambda image, mask: image[mask == 1].mean(0).round().astype(np.uint8),
    }
    cosines: dict[str, list[float]] = {name: [] for name in fills}
    for boxes in _frames_of_clips(project).values():
        image = _crop(project, rows[boxes[0]], WIDE_FRAC, GRABCUT_PX)
        mask = _object(image)
        if mask is None:
            continue
        plain = _context(painter, image)
        x0, y0, x1, y1 = mask_box(mask)
        for name, fill in fills.items():
            filled = np.where(mask[..., None] == 1, image, fill(image, mask))
            cosines[f"{name}"].append(float(plain @ _context(painter, filled)))
            tight = filled[y0:y1, x0:x1]
            cosines.setdefault(f"{name}, cut to the object", []).append(float(plain @ _context(painter, tight)))
    for name, values in cosines.items():
        print(f"| {name} | {np.mean(values):.3f} | {np.quantile(values, 0.1):.3f} | of {len(values)} exemplars")


def _context(painter: Painter, image: Image) -> Tensor:
    with torch.inference_mode():
        context = painter.conditioner.describe(resize(image, painter.exemplar_px, painter.exemplar_px))
    return F.normalize(context.float().flatten(), dim=-1)


def _object(crop: Image) -> Mask | None:
    """Return GrabCut's object in a crop with a wide margin; None where it finds next to nothing, or almost all."""
    margin = int(GRABCUT_PX * WIDE_FRAC / (1 + 2 * WIDE_FRAC))
    labels = np.zeros(crop.shape[:2], np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    inner = (margin, margin, GRABCUT_PX - 2 * margin, GRABCUT_PX - 2 * margin)
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(crop[..., ::-1]), labels, inner, *models, 4, cv2.GC_INIT_WITH_RECT)
    mask = (labels % 2 == 1).astype(np.uint8)
    return mask if 0.05 < mask.mean() < 0.6 else None


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
