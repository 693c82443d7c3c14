"""Which exemplar tower finds an object again on photographs that it was not trained on?

    .venv/bin/python benchmarks/tower.py --fod-a FOLDER --photos FOLDER [--tower FOLDER ...] [--out FILE]

A tower is an `image_encoder` of a backbone or a painter; it is compared with EfficientNet-Lite0, whose weights come by
pip. Queries are crops of the held-back clips of FOD-A (`val` in scenes.csv). The answer is the nearest crop by cosine:

- `clip`: among all other held-back frames; right if it is of the query's clip
- `class`: among the frames of other clips; right if it shows the query's class (classes with two clips or more)

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
DRAWS, CONFIDENCE = 2000, 0.95
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A held-back photograph with one box. `group` is its clip, or the picture itself."""

    path: Path
    box: Box
    group: str
    label: str


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
    frames = list(held_back_frames(options.fod_a))[: options.num]
    pictures = list(held_back_pictures(options.photos))[: options.num]
    changes = changes_of(load_settings(ROOT / "params.yaml").method.exemplar)
    yield f"{machine()}; {len(frames)} frames of {len({f.group for f in frames})} clips, {len(pictures)} pictures"
    crops = {"fod-a": views(frames, changes), "pictures": views(pictures, changes)}
    found: dict[str, dict[tuple[str, str], Bools]] = {}
    for name, encoder in encoders.items():
        found[name] = answers(encoder, frames, crops["fod-a"]) | answers(encoder, pictures, crops["pictures"])
    members = {"clip": frames, "class": frames, "picture": pictures}
    for task, rows in members.items():
        yield from table(task, rows, {n: {c: v for (t, c), v in f.items() if t == task} for n, f in found.items()})
    sample = crops["fod-a"]["itself"][:64]
    times = medians_s({n: partial(in_batches, e, sample) for n, e in encoders.items()}, 3)
    yield "\n" + "; ".join(f"{name}: {1000 * s / len(sample):.1f} ms a crop" for name, s in times.items())


def held_back_frames(root: Path) -> Iterator[Picture]:
    with (root / "scenes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "val":
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


def views(pictures: Sequence[Picture], changes: dict[str, Change]) -> dict[str, list[Image]]:
    """Return the crops of all pictures under each change; the draws are always the same."""
    images = [read_image(picture.path) for picture in pictures]
    return {
        name: [
            change(image, picture.box, np.random.default_rng([n, number]))
            for n, (image, picture) in enumerate(zip(images, pictures, strict=True))
        ]
        for number, (name, change) in enumerate(changes.items())
    }


def answers(
    encoder: FeatureEncoder, pictures: Sequence[Picture], crops: dict[str, list[Image]]
) -> dict[tuple[str, str], Bools]:
    """Return whether the answer to each query is right, by task and change."""
    groups, labels = np.array([p.group for p in pictures]), np.array([p.label for p in pictures])
    gallery = unit(in_batches(encoder, crops["itself"]))
    same_group, same_label = groups[:, None] == groups, labels[:, None] == labels
    itself = np.eye(len(pictures), dtype=bool)
    has_clips = bool((same_group & ~itself).any())
    right: dict[tuple[str, str], Bools] = {}
    for change, queries in crops.items():
        cosines = unit(in_batches(encoder, queries)) @ gallery.T
        if has_clips:
            right["clip", change] = pick(cosines, itself, same_group)
            right["class", change] = pick(cosines, same_group, same_label)
        elif change != "itself":
            right["picture", change] = pick(cosines, np.zeros_like(itself), itself)
    return right


def pick(cosines: NDArray[np.float32], excluded: Bools, right: Bools) -> Bools:
    """Return whether the nearest crop that is not excluded is a right one."""
    nearest = np.where(excluded, -2.0, cosines).argmax(1)
    return np.asarray(right[np.arange(len(right)), nearest])


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def asked(task: str, pictures: Sequence[Picture]) -> Bools:
    """Return which queries have a right answer in the gallery."""
    clips: dict[str, set[str]] = {}
    for picture in pictures:
        clips.setdefault(picture.label, set()).add(picture.group)
    return np.array([task != "class" or len(clips[picture.label]) > 1 for picture in pictures])


def table(task: str, pictures: Sequence[Picture], found: dict[str, dict[str, Bools]]) -> Iterator[str]:
    """Yield a table of the percentages found, with intervals, and the differences from the first encoder."""
    queries = asked(task, pictures)
    if not queries.any():
        return
    groups = np.unique([p.group for p, chosen in zip(pictures, queries, strict=True) if chosen], return_inverse=True)[1]
    counts = bootstrap_counts(int(groups.max()) + 1, DRAWS, seed=0)[:, groups]
    first = next(iter(found.values()))
    unit_of_draws = "pictures" if task == "picture" else "clips"
    yield f"\n**{task}**: {queries.sum()} queries of {groups.max() + 1} {unit_of_draws}\n"
    yield f"| encoder | {' | '.join(first)} |"
    yield "|---" * (len(first) + 1) + "|"
    for name, right in found.items():
        cells = [percentage(right[change][queries], counts) for change in first]
        yield f"| {name} | {' | '.join(f'{c.value:.1f} % ({c.low:.1f} to {c.high:.1f})' for c in cells)} |"
    for name, right in list(found.items())[1:]:
        pairs = [(right[c][queries].astype(float) - first[c][queries]) for c in first]
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
