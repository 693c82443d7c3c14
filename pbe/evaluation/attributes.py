"""How often the exemplar's shape, colours and pattern are found in the repainted box, where the truth is known.

A judge reads crops; it shares nothing with the tower that conditions the painter. What it gets right on true, unedited
crops is the 100 % that an edit can reach.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.demo.scenes import COLOURS, PATTERNS, SHAPES, Attributes
from pbe.evaluation.bench import Box, Image
from pbe.method.exemplars import crop_exemplar, resize

Readings = dict[str, NDArray[np.int64]]  # attribute => index of its word per crop, (N,)

WORDS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "second_colour": COLOURS,
}
ACCURACY_KEYS = tuple(f"{name}_accuracy" for name in WORDS)
CROP_PX = 32
_PAD_FRAC = 0.06


class AttributeJudge(Protocol):
    """Crops (B, h, w, 3) uint8 => per attribute of WORDS the index of its word, (B,)."""

    def read(self, crops: NDArray[np.uint8]) -> Readings: ...


def crop_for_judge(image: Image, box_xyxy: Box) -> Image:
    """The box with a rim of 6 %, as the judge learned to see things, (32, 32, 3)."""
    return crop_exemplar(image, box_xyxy, _PAD_FRAC, CROP_PX)


def read_boxes(judge: AttributeJudge, images: Sequence[Image], boxes: Sequence[Box]) -> Readings:
    """Read one box of each image."""
    return judge.read(np.stack([crop_for_judge(i, b) for i, b in zip(images, boxes, strict=True)]))


def read_exemplars(judge: AttributeJudge, exemplars: Sequence[Image]) -> Readings:
    """Read exemplars of any size, which have their rim already."""
    return judge.read(np.stack([resize(e, CROP_PX, CROP_PX) for e in exemplars]))


def join_readings(parts: Sequence[Readings]) -> Readings:
    """Readings of several batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in WORDS}


def truth_readings(truth: Sequence[Attributes]) -> Readings:
    """What a judge that never errs would read."""
    return {
        name: np.array([words.index(getattr(attributes, name)) for attributes in truth], np.int64)
        for name, words in WORDS.items()
    }


def accuracies(readings: Readings, truth: Sequence[Attributes]) -> dict[str, float | None]:
    """Percent right per attribute, keyed "shape_accuracy" and so on.

    The second colour counts only where there is one, on patterned things; None where none is patterned.
    """
    right = {name: readings[name] == expected for name, expected in truth_readings(truth).items()}
    patterned = np.array([attributes.pattern != "plain" for attributes in truth], bool)
    right["second_colour"] = right["second_colour"][patterned]
    return {f"{name}_accuracy": 100 * float(r.mean()) if len(r) else None for name, r in right.items()}
