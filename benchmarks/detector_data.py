"""FOD-A's clips for `detector.py`: which are trained on, which are held back, and what is painted from them.

Six classes have at least five training clips. Six clips of a class (MetalPart has five) go to six folds, and run k
leaves fold k out, so that a run trains on five clips of each class, of MetalPart on four or five. Of a clip one frame
is known: the detector's real pictures, the sources and the exemplars are these frames. An object is painted only into
frames of the same fold, so that every run can use the pictures of its folds and no picture shows a clip that it leaves
out: 10 pictures for each of 35 frames serve all runs. It is painted in its own size where the pavement is free.

Held back are, in every run, all clips that it does not train on. The validation clips were never seen by the painter
either (`unseen`); the others are training clips of the painter.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image as PillowImage

from pbe.dataset.images import read_image
from pbe.method.exemplars import crop_exemplar
from pbe.method.windows import mask_box
from pbe.types import Box, Image

NUM_FOLDS = 6
LEAST_CLIPS = 5
PAINTED_PER_FRAME = 10
HELD_BACK_PER_CLIP = 10  # a clip's frames are nearly alike
EXEMPLAR_PX = 128
EDGE_PX = 2
_TRIES = 500


@dataclass(frozen=True)
class Example:
    """A picture with one object, or with others beside it."""

    image: Path
    label: str
    box: Box
    others: tuple[tuple[str, Box], ...] = ()


@dataclass(frozen=True)
class Clip:
    """The frames of one clip, in their order; all show the same object."""

    name: str
    label: str
    unseen: bool
    frames: tuple[Example, ...]

    def spread(self, count: int) -> list[Example]:
        """Return at most `count` frames, evenly spread over the clip."""
        places = np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().astype(int)
        return [self.frames[n] for n in places]


@dataclass(frozen=True)
class Pasting:
    """One picture to make: the object of `frame` goes into the source at `box`; `others` remain in it."""

    name: str
    fold: int
    frame: Example
    exemplar: Path
    source: Example
    box: Box
    others: tuple[tuple[str, Box], ...]
    seed: int


def read_clips(root: Path) -> list[Clip]:
    """Return the clips of the classes with enough training clips, by name."""
    frames: dict[tuple[str, str, str], list[Example]] = defaultdict(list)
    with (root / "scenes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["label"], row["scene"], row["split"]
            frames[key].append(_example(root, row["image"]))
    clips = [
        Clip(f"{label}/{scene}", label, split != "train", tuple(sorted(found, key=lambda frame: frame.image.name)))
        for (label, scene, split), found in sorted(frames.items())
    ]
    num_train = {label: sum(not clip.unseen for clip in clips if clip.label == label) for label, *_ in frames}
    return [clip for clip in clips if num_train[clip.label] >= LEAST_CLIPS]


def draw_folds(clips: Sequence[Clip], rng: np.random.Generator) -> list[list[tuple[Clip, Example]]]:
    """Return the clips of each fold, one of a class, each with the frame of it that is known."""
    folds: list[list[tuple[Clip, Example]]] = [[] for _ in range(NUM_FOLDS)]
    for label in sorted({clip.label for clip in clips}):
        of_class = [clip for clip in clips if clip.label == label and not clip.unseen]
        order = rng.permutation(len(of_class))[:NUM_FOLDS]
        for fold, place in zip(folds, order, strict=False):
            clip = of_class[place]
            whole = [frame for frame in clip.frames if is_whole(frame)] or clip.frames
            fold.append((clip, whole[int(rng.integers(len(whole)))]))
    return folds


def is_whole(frame: Example) -> bool:
    """Return whether the picture's edge does not cut the object off."""
    width, height = image_sides(frame.image)
    x0, y0, x1, y1 = frame.box
    return min(x0, y0, width - x1, height - y1) > EDGE_PX


def plan_pastings(
    folds: Sequence[Sequence[tuple[Clip, Example]]],
    exemplars: Path,
    pad_frac: float,
    per_frame: int,
    rng: np.random.Generator,
) -> list[Pasting]:
    """Return what to paint; writes the exemplars, crops of the known frames as in training."""
    pastings: list[Pasting] = []
    exemplars.mkdir(parents=True, exist_ok=True)
    for number, fold in enumerate(folds):
        for clip, frame in fold:
            path = exemplars / f"{clip.name.replace('/', '-')}.png"
            PillowImage.fromarray(crop_exemplar(read_image(frame.image), frame.box, pad_frac, EXEMPLAR_PX)).save(path)
            sources = [source for other, source in fold if other is not clip]
            order = [sources[n] for n in rng.permutation(len(sources))]
            for place in range(per_frame):
                shift = place % len(order)
                source, box, others = _place(frame.box, order[shift:] + order[:shift], rng)
                name = f"{path.stem}-{place}"
                pastings.append(Pasting(name, number, frame, path, source, box, others, len(pastings)))
    return pastings


def _place(
    shape: Box, sources: Sequence[Example], rng: np.random.Generator
) -> tuple[Example, Box, tuple[tuple[str, Box], ...]]:
    """Return the first source with room for a box, the box, and what remains of the source.

    Without room in any of them, the smallest box that covers a source's object.
    """
    for source in sources:
        if box := free_box(source.box, shape, image_sides(source.image), rng):
            return source, box, ((source.label, source.box),)
    covering = [(source, covering_box(source.box, shape, image_sides(source.image))) for source in sources]
    source, box = min(covering, key=lambda each: (each[1][2] - each[1][0]) * (each[1][3] - each[1][1]))
    return source, box, ()


def free_box(taken: Box, shape: Box, sides: tuple[int, int], rng: np.random.Generator) -> Box | None:
    """Draw a box of the size of `shape` in a picture (w, h) that does not overlap `taken`; None if no try finds one."""
    size_x, size_y = shape[2] - shape[0], shape[3] - shape[1]
    if size_x > sides[0] or size_y > sides[1]:
        return None
    for _ in range(_TRIES):
        x0, y0 = int(rng.integers(sides[0] - size_x + 1)), int(rng.integers(sides[1] - size_y + 1))
        if x0 >= taken[2] or y0 >= taken[3] or x0 + size_x <= taken[0] or y0 + size_y <= taken[1]:
            return x0, y0, x0 + size_x, y0 + size_y
    return None


def covering_box(covered: Box, shape: Box, sides: tuple[int, int]) -> Box:
    """Return the smallest box around `covered` with the proportions of `shape`, moved into the picture (w, h).

    A box that is longer than the picture is cut off, and then has other proportions.
    """
    width, height = covered[2] - covered[0], covered[3] - covered[1]
    aspect = (shape[2] - shape[0]) / (shape[3] - shape[1])
    wanted = max(width, round(height * aspect)), max(height, round(width / aspect))
    corners = []
    for low, high, length, limit in zip(covered[:2], covered[2:], wanted, sides, strict=True):
        length = min(length, limit)
        start = min(max((low + high - length) // 2, 0), limit - length)
        corners.append((start, start + length))
    (x0, x1), (y0, y1) = corners
    return x0, y0, x1, y1


def image_sides(path: Path) -> tuple[int, int]:
    with PillowImage.open(path) as opened:
        return opened.size


def tight_crop(frame: Example) -> Image:
    """Return the pixels of the object's box."""
    x0, y0, x1, y1 = frame.box
    return np.ascontiguousarray(read_image(frame.image)[y0:y1, x0:x1])


def _example(root: Path, name: str) -> Example:
    tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
    found = tree.find("object")
    assert found is not None
    x0, y0, x1, y1 = (round(float(found.findtext(f"bndbox/{key}", ""))) for key in ("xmin", "ymin", "xmax", "ymax"))
    box = max(0, x0 - 1), max(0, y0 - 1), x1, y1  # VOC counts pixels from 1
    return Example(root / "JPEGImages" / f"{name}.jpg", found.findtext("name", ""), box)


def augmented(image: Image, box: Box, rng: np.random.Generator) -> tuple[Image, Box]:
    """Return a picture and its box cut closer, mirrored, turned by quarters, and in another light.

    Pavement seen from above has no upright.
    """
    height, width = image.shape[:2]
    share = rng.uniform(0.75, 1.0)
    x0, y0, x1, y1 = box
    cut_w, cut_h = max(round(share * width), x1 - x0), max(round(share * height), y1 - y0)
    left = int(rng.integers(max(0, x1 - cut_w), min(x0, width - cut_w) + 1))
    top = int(rng.integers(max(0, y1 - cut_h), min(y0, height - cut_h) + 1))
    marked = np.zeros((height, width), np.uint8)
    marked[y0:y1, x0:x1] = 1
    cut, marks = image[top : top + cut_h, left : left + cut_w], marked[top : top + cut_h, left : left + cut_w]
    if rng.random() < 0.5:
        cut, marks = cut[:, ::-1], marks[:, ::-1]
    turns = int(rng.integers(4))
    cut, marks = np.rot90(cut, turns), np.rot90(marks, turns)
    lit = cut.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20)
    return np.ascontiguousarray(lit.clip(0, 255).round().astype(np.uint8)), mask_box(np.ascontiguousarray(marks))
