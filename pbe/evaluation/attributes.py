"""Attributes of the exemplar, such as its shape and colours, that are found in the repainted box.

They can be scored where the true attributes of every box are known, and where a classifier reads attributes from
images. The demo world offers both (`pbe.demo.accuracy`). The classifier shares nothing with the tower that conditions
the painter, and its accuracy on true, unedited crops is the most that an edit can reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pbe.types import Box, Image

AttributeValues = Mapping[
    str, str
]  # attribute -> value, such as "colour" -> "red"; one that does not apply is left out


@dataclass(frozen=True)
class BoxTruth:
    """The true attributes of a box, and the caption that describes it."""

    values: AttributeValues
    caption: str


class AttributeClassifier(Protocol):
    """Reads the attributes of objects from images; every reading has a value for each of `attributes`."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, in the order of reports."""

    def read_boxes(self, images: Sequence[Image], boxes: Sequence[Box]) -> list[AttributeValues]:
        """Read the attributes in one box of each image."""

    def read_exemplars(self, exemplars: Sequence[Image]) -> list[AttributeValues]:
        """Read the attributes of exemplars of any size."""

    def caption(self, values: AttributeValues) -> str:
        """Describe an object by its attributes."""


def accuracies(
    attributes: Sequence[str], readings: Sequence[AttributeValues], truth: Sequence[AttributeValues]
) -> dict[str, float | None]:
    """Return the percentage of correct readings of each attribute, keyed `<attribute>_accuracy`.

    An attribute is scored on the cases whose truth has it, and its accuracy is None where none has.
    """
    return {f"{name}_accuracy": _accuracy(name, readings, truth) for name in attributes}


def _accuracy(name: str, readings: Sequence[AttributeValues], truth: Sequence[AttributeValues]) -> float | None:
    correct = [read[name] == true[name] for read, true in zip(readings, truth, strict=True) if name in true]
    return 100 * float(np.mean(correct)) if correct else None
