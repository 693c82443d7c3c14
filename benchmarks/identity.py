"""How often an encoder finds the same object again among photographs of others: which one can measure identity?

    .venv/bin/python benchmarks/identity.py --fod-a FOLDER --photos FOLDER [--tower models/pbe/image_encoder]
                                            [--encoder FOLDER ...]

FOD-A (Munyer et al., 2021) is read as Pascal VOC, with scenes.csv, which says of which clip a frame is. Each clip gives
two pairs of frames. A crop is looked for among the crops of all first frames; it counts as found when the nearest one,
by cosine, is of the same clip. The query is the next frame, any other frame, or the first frame itself or the next one
under the paper's augmentation of exemplars. Photos are COCO: an augmented crop is looked for among 1,000 others. Prints
percentages and asserts nothing about them.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray
from sizes import machine, medians_s

from pbe.dataset.images import read_image
from pbe.evaluation.encoders.efficientnet import EfficientNetEncoder
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.loading import open_encoder
from pbe.evaluation.encoders.local import open_identity_encoder
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.method.exemplars import augment_exemplar, crop_exemplar, resize
from pbe.settings import ExemplarAugmentation, load_settings
from pbe.types import Box, Image

ROOT = Path(__file__).parents[1]
PAIRS_PER_CLIP = 2
NUM_PHOTOS = 1000


@dataclass(frozen=True)
class Frame:
    """One frame of a clip, with its largest box."""

    image: Path
    box: Box
    clip: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fod-a", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--tower", type=Path, help="image_encoder of a painter")
    parser.add_argument("--encoder", nargs="*", default=[], help="folders for evaluate.identity")
    parser.add_argument("--side-px", type=int, nargs="+", default=[64, 96, 128, 224], help="EfficientNet's input")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    augmentation = load_settings(ROOT / "params.yaml").method.exemplar
    queries, gallery, clips = draw_pairs(options.fod_a, augmentation)
    photos = draw_photos(options.photos, augmentation)
    augmented = [augment_exemplar(crop, augmentation, np.random.default_rng(n)) for n, crop in enumerate(photos)]
    print(machine())
    print(f"{len(clips)} pairs of {len(set(clips))} clips: {100 * PAIRS_PER_CLIP / len(clips):.1f} % by chance")
    print(f"{len(photos)} photos")
    print(f"{'encoder':58s} " + " ".join(f"{name:>15s}" for name in (*queries, "photo")) + "   ms/crop")
    for name, encode in encoders(options):
        features = encode(gallery)
        shares = [found(encode(crops), features, clips) for crops in queries.values()]
        shares.append(found(encode(augmented), encode(photos), range(len(photos))))
        took = 1000 * medians_s({name: partial(encode, gallery[:32])}, 3)[name] / 32
        print(f"{name:58s} " + " ".join(f"{100 * share:13.1f} %" for share in shares) + f" {took:9.1f}", flush=True)


Encode = Callable[[Sequence[Image]], NDArray[np.float32]]


def encoders(options: Any) -> list[tuple[str, Encode]]:
    """Return names and encoders: pixels at 16 x 16, the painter's tower, EfficientNet, and those of folders."""
    opened: list[FeatureEncoder] = [open_encoder(options.tower)] if options.tower else []
    opened += [EfficientNetEncoder(input_px=side) for side in options.side_px]
    opened += [encoder for folder in options.encoder if (encoder := open_identity_encoder(folder))]
    rows: list[tuple[str, Encode]] = [("pixels at 16 px, without their mean", pixels)]
    return rows + [(encoder.name.split(" (class")[0], partial(in_batches, encoder)) for encoder in opened]


def pixels(crops: Sequence[Image]) -> NDArray[np.float32]:
    values = np.stack([resize(crop, 16, 16) for crop in crops]).reshape(len(crops), -1).astype(np.float32)
    return values - values.mean(1, keepdims=True)


def in_batches(encoder: FeatureEncoder, crops: Sequence[Image]) -> NDArray[np.float32]:
    return np.concatenate([encode_batch(encoder, crops[n : n + 32]) for n in range(0, len(crops), 32)])


def found(queries: NDArray[np.float32], gallery: NDArray[np.float32], clips: Sequence[Any]) -> float:
    """Return the share of queries whose nearest crop of the gallery is of the same clip."""
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, gallery))
    return float(np.mean([clips[n] == clip for n, clip in zip((first @ second.T).argmax(1), clips, strict=True)]))


def draw_pairs(
    root: Path, augmentation: ExemplarAugmentation
) -> tuple[Mapping[str, list[Image]], list[Image], list[str]]:
    """Return the queries by kind, the gallery, and the clip of each; the draws are always the same."""
    rng = np.random.default_rng(0)
    first, following, other = [], [], []
    for frames in read_clips(root):
        for _ in range(PAIRS_PER_CLIP):
            n = int(rng.integers(len(frames) - 1))
            first.append(frames[n])
            following.append(frames[n + 1])
            other.append(frames[rng.choice([k for k in range(len(frames)) if k != n])])
    gallery, next_crops, other_crops = (
        [cut(f, augmentation.pad_frac) for f in each] for each in (first, following, other)
    )
    queries = {
        "next frame": next_crops,
        "other frame": other_crops,
        "augmented": [augment_exemplar(crop, augmentation, rng) for crop in gallery],
        "next, augmented": [augment_exemplar(crop, augmentation, rng) for crop in next_crops],
    }
    return queries, gallery, [frame.clip for frame in first]


def cut(frame: Frame, pad_frac: float) -> Image:
    """Return the crop at the object's own resolution, as a square."""
    x0, y0, x1, y1 = frame.box
    return crop_exemplar(read_image(frame.image), frame.box, pad_frac, max(x1 - x0, y1 - y0))


def read_clips(root: Path) -> list[list[Frame]]:
    """Return the frames of every clip of two or more, in their order."""
    clips: dict[str, list[Frame]] = defaultdict(list)
    with (root / "scenes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            image = root / "JPEGImages" / f"{row['image']}.jpg"
            box = largest_box(root / "Annotations" / f"{row['image']}.xml")
            clips[row["scene"]].append(Frame(image, box, row["scene"]))
    return [sorted(frames, key=lambda f: f.image.name) for _, frames in sorted(clips.items()) if len(frames) > 1]


def draw_photos(root: Path, augmentation: ExemplarAugmentation) -> list[Image]:
    """Return the crops of 1,000 images, of the first box of each; the draw is always the same."""
    boxes: dict[str, tuple[float, float, float, float]] = {}
    for file in sorted((root / "annotations").glob("*.json")):
        content = json.loads(file.read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        for box in content["annotations"]:
            boxes.setdefault(names[box["image_id"]], box["bbox"])
    drawn = np.random.default_rng(0).permutation(sorted(boxes))[:NUM_PHOTOS]
    frames = [Frame(root / name, as_box(*boxes[name]), name) for name in drawn]
    return [cut(frame, augmentation.pad_frac) for frame in frames]


def as_box(left: float, top: float, width: float, height: float) -> Box:
    return int(left), int(top), int(left + width), int(top + height)


def largest_box(annotation: Path) -> Box:
    boxes = []
    for box in ElementTree.parse(annotation).iterfind("object/bndbox"):
        x0, y0, x1, y1 = (float(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((int(x0 - 1), int(y0 - 1), round(x1), round(y1)))  # VOC counts pixels from 1
    return max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))


if __name__ == "__main__":
    main()
