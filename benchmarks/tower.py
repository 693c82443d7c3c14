"""Which exemplar tower finds an object again on photographs that it was not trained on?

    .venv/bin/python benchmarks/tower.py --fod-a FOLDER --photos FOLDER [--tower FOLDER ...] [--out FILE]

A tower is an `image_encoder` of a backbone or a painter; it is compared with EfficientNet-Lite0, whose weights come by
pip. Queries are crops of the held-back clips of FOD-A (`val` in scenes.csv). The answer is the nearest crop by cosine:

- `clip`: among all other held-back frames; right if it is of the query's clip
- `class`: among every fifth frame of the training clips, which show another object of the class or another place; right
  if it shows the query's class. A tower of data/photo was trained on these clips and their classes, so that this asks
  what it makes of a new clip.

On Caltech 101's held-back pictures and on raccoons, the answer to a changed crop is right if it is the same picture.
A query is the crop itself, or it is changed: `augmented` (the paper's augmentation, every part of it applied), `zoomed`
(0.6 to 1.6 times the box, shifted by up to 0.15 of it), `low resolution` (16 px) or all three. Intervals are a paired
bootstrap over clips, or over pictures. Prints markdown, and asserts nothing.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from identity import as_box, in_batches, largest_box
from numpy.typing import NDArray
from sizes import machine, medians_s

from pbe.dataset.images import read_image
from pbe.evaluation.encoders.efficientnet import EfficientNetEncoder
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.encoders.tower import TowerEncoder
from pbe.evaluation.scoring.intervals import Interval, bootstrap_counts, draws_interval
from pbe.method.conditioner import Conditioner
from pbe.method.exemplars import augment_exemplar, crop_exemplar, resize
from pbe.settings import ExemplarAugmentation, load_settings
from pbe.types import Box, Image

ROOT = Path(__file__).parents[1]
LOW_RESOLUTION_PX = 16
EVERY = 5
DRAWS, CONFIDENCE = 2000, 0.95
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A held-back photograph with one box. `group` is its clip, or the picture itself."""

    path: Path
    box: Box
    group: str
    label: str


Crops = dict[str, list[Image]]
Answers = dict[tuple[str, str], Bools]
Change = Callable[[Image, Box, np.random.Generator], Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fod-a", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--tower", type=Path, nargs="*", default=[], help="image_encoder of a backbone or a painter")
    parser.add_argument("--side-px", type=int, nargs="+", default=[64, 96], help="EfficientNet's input")
    parser.add_argument("--num", type=int, help="at most so many frames of FOD-A and pictures; default: all")
    parser.add_argument("--out", type=Path, help="write the markdown here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoders: dict[str, FeatureEncoder] = {
        f"EfficientNet-Lite0, {side} px": EfficientNetEncoder(input_px=side) for side in options.side_px
    }
    for folder in options.tower:
        tower = TowerEncoder(Conditioner.from_tower(folder, 1))
        encoders[f"{folder.parent.name}/{folder.name}, {tower.input_px} px"] = tower
    text = "\n".join(report(options, encoders))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def report(options: argparse.Namespace, encoders: dict[str, FeatureEncoder]) -> Iterator[str]:
    """Yield the lines of all tables."""
    frames = list(read_frames(options.fod_a, "val"))[: options.num]
    known = list(read_frames(options.fod_a, "train"))[::EVERY][: options.num]
    pictures = list(held_back_pictures(options.photos))[: options.num]
    changes = changes_of(load_settings(ROOT / "params.yaml").method.exemplar)
    clips = len({frame.group for frame in frames})
    yield machine()
    yield f"{len(frames)} frames of {clips} held-back clips, {len(known)} of training clips, {len(pictures)} pictures"
    itself = {"itself": changes["itself"]}
    crops, known_crops, photos = views(frames, changes), views(known, itself)["itself"], views(pictures, changes)
    found: dict[str, Answers] = {}
    for name, encoder in encoders.items():
        found[name] = (
            clip_answers(encoder, frames, crops)
            | class_answers(encoder, frames, crops, known, known_crops)
            | picture_answers(encoder, pictures, photos)
        )
    members = {"clip": frames, "class": frames, "picture": pictures}
    for task, rows in members.items():
        yield from table(task, rows, {n: {c: v for (t, c), v in f.items() if t == task} for n, f in found.items()})
    sample = crops["itself"][:64]
    times = medians_s({n: partial(in_batches, e, sample) for n, e in encoders.items()}, 3)
    yield "\n" + "; ".join(f"{name}: {1000 * s / len(sample):.1f} ms a crop" for name, s in times.items())


def read_frames(root: Path, split: str) -> Iterator[Picture]:
    with (root / "scenes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                box = largest_box(root / "Annotations" / f"{row['image']}.xml")
                path = root / "JPEGImages" / f"{row['image']}.jpg"
                yield Picture(path, box, f"{row['label']}/{row['scene']}", row["label"])


def held_back_pictures(root: Path) -> Iterator[Picture]:
    """Yield Caltech's validation pictures, and all raccoons: the recipe has no raccoon."""
    for split in ("train", "val"):
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
        files = {row["id"]: row["file_name"] for row in content["images"]}
        names = {row["id"]: row["name"] for row in content["categories"]}
        first = {row["image_id"]: row for row in reversed(content["annotations"])}
        for number, row in sorted(first.items()):
            file = files[number]
            if "/raccoon/" in file or (split == "val" and "/caltech-101/" in file):
                yield Picture(root / file, as_box(*row["bbox"]), file, names[row["category_id"]])


def changes_of(augmentation: ExemplarAugmentation) -> dict[str, Change]:
    """Return what is done to a crop, by name; "itself" is the gallery's crop."""
    always = augmentation.replace(rotate_probability=1.0, blur_probability=1.0, elastic_probability=1.0)

    def itself(image: Image, box: Box, rng: np.random.Generator) -> Image:
        return crop_exemplar(image, box, augmentation.pad_frac, side_of(box))

    def zoomed(image: Image, box: Box, rng: np.random.Generator) -> Image:
        return crop_exemplar(image, zoom(image, box, rng), 0.0, side_of(box))

    def augmented(crop: Image, rng: np.random.Generator) -> Image:
        return augment_exemplar(crop, always, rng)

    def shrunk(crop: Image) -> Image:
        return resize(crop, LOW_RESOLUTION_PX, LOW_RESOLUTION_PX)

    return {
        "itself": itself,
        "augmented": lambda image, box, rng: augmented(itself(image, box, rng), rng),
        "zoomed": zoomed,
        "low resolution": lambda image, box, rng: shrunk(itself(image, box, rng)),
        "all three": lambda image, box, rng: shrunk(augmented(zoomed(image, box, rng), rng)),
    }


def side_of(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def zoom(image: Image, box: Box, rng: np.random.Generator) -> Box:
    """Draw a box of 0.6 to 1.6 times the sides, shifted by up to 0.15 of them, within the image."""
    x0, y0, x1, y1 = box
    sides = np.array([x1 - x0, y1 - y0])
    centre = np.array([x0 + x1, y0 + y1]) / 2 + rng.uniform(-0.15, 0.15, 2) * sides
    half = rng.uniform(0.6, 1.6) * sides / 2
    limits = np.array([image.shape[1], image.shape[0]])
    left, top = np.clip(np.floor(centre - half), 0, limits - 1).astype(int)
    right, bottom = np.clip(np.ceil(centre + half), (left + 1, top + 1), limits).astype(int)
    return int(left), int(top), int(right), int(bottom)


def views(pictures: Sequence[Picture], changes: dict[str, Change]) -> Crops:
    """Return the crops of all pictures under each change; the draws are always the same."""
    images = [read_image(picture.path) for picture in pictures]
    return {
        name: [
            change(image, picture.box, np.random.default_rng([n, number]))
            for n, (image, picture) in enumerate(zip(images, pictures, strict=True))
        ]
        for number, (name, change) in enumerate(changes.items())
    }


def clip_answers(encoder: FeatureEncoder, frames: Sequence[Picture], crops: Crops) -> Answers:
    """Return whether the nearest other frame of each query is of its clip, by task and change."""
    clips = np.array([frame.group for frame in frames])
    gallery = unit(in_batches(encoder, crops["itself"]))
    cosines = {change: unit(in_batches(encoder, queries)) @ gallery.T for change, queries in crops.items()}
    itself = np.eye(len(frames), dtype=bool)
    return {("clip", c): picked(np.where(itself, -2.0, found), clips[:, None] == clips) for c, found in cosines.items()}


def class_answers(
    encoder: FeatureEncoder, frames: Sequence[Picture], crops: Crops, known: Sequence[Picture], gallery: list[Image]
) -> Answers:
    """Return whether the nearest known frame of each query shows its class, by task and change."""
    right = np.array([frame.label for frame in frames])[:, None] == np.array([frame.label for frame in known])
    features = unit(in_batches(encoder, gallery))
    return {("class", c): picked(unit(in_batches(encoder, q)) @ features.T, right) for c, q in crops.items()}


def picture_answers(encoder: FeatureEncoder, pictures: Sequence[Picture], crops: Crops) -> Answers:
    """Return whether the nearest picture of each changed crop is its own, by task and change."""
    itself, features = np.eye(len(pictures), dtype=bool), unit(in_batches(encoder, crops["itself"]))
    changed = {change: queries for change, queries in crops.items() if change != "itself"}
    return {("picture", c): picked(unit(in_batches(encoder, q)) @ features.T, itself) for c, q in changed.items()}


def picked(cosines: NDArray[np.float32], right: Bools) -> Bools:
    """Return whether the nearest crop of each row is a right one."""
    return np.asarray(right[np.arange(len(right)), cosines.argmax(1)])


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def table(task: str, pictures: Sequence[Picture], found: dict[str, dict[str, Bools]]) -> Iterator[str]:
    """Yield a table of the percentages found, with intervals, and the differences from the first encoder."""
    groups = np.unique([picture.group for picture in pictures], return_inverse=True)[1]
    counts = bootstrap_counts(int(groups.max()) + 1, DRAWS, seed=0)[:, groups]
    first = next(iter(found.values()))
    unit_of_draws = "pictures" if task == "picture" else "clips"
    yield f"\n**{task}**: {len(pictures)} queries of {groups.max() + 1} {unit_of_draws}\n"
    yield f"| encoder | {' | '.join(first)} |"
    yield "|---" * (len(first) + 1) + "|"
    for name, right in found.items():
        cells = [percentage(right[change], counts) for change in first]
        yield f"| {name} | {' | '.join(f'{c.value:.1f} % ({c.low:.1f} to {c.high:.1f})' for c in cells)} |"
    for name, right in list(found.items())[1:]:
        pairs = [right[c].astype(float) - first[c] for c in first]
        cells = [percentage(pair, counts) for pair in pairs]
        shown = " | ".join(f"{c.value:+.1f} ({c.low:+.1f} to {c.high:+.1f})" for c in cells)
        yield f"| {name}, less {next(iter(found))} | {shown} |"


def percentage(values: NDArray[np.generic], counts: NDArray[np.float64]) -> Interval:
    """Return 100 times the mean of `values`, with its interval over draws that take each group `counts` times."""
    numbers = np.asarray(values, np.float64)
    draws = counts @ numbers / counts.sum(1)
    return draws_interval(100 * float(numbers.mean()), 100 * draws, CONFIDENCE)


if __name__ == "__main__":
    main()
