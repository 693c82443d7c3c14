"""Attributes of the exemplar, such as its shape and colours, that are found in the repainted box.

They can be scored where the true attributes of every box are known, and where a classifier reads attributes from
images. The demo world offers both (`pbe.demo.accuracy`). The classifier shares nothing with the tower that conditions
the painter, and its accuracy on true, unedited crops is the most that an edit can reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.types import Box, Image

CORRECT = "_correct"  # ends the name of a column: 1 where the result shows the exemplar's attribute, else 0
ON_EXEMPLAR, ON_SOURCE = "_on_exemplar", "_on_source"  # end a column of the classifier's readings of true crops

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


def correct_readings(
    name: str, readings: Sequence[AttributeValues], truth: Sequence[AttributeValues]
) -> NDArray[np.float64]:
    """Return 1 for each correct reading of an attribute, 0 for each wrong one, NaN where the truth has none: (N,)."""
    pairs = zip(readings, truth, strict=True)
    return np.array([float(read[name] == true[name]) if name in true else np.nan for read, true in pairs], np.float64)


def accuracy(correct: NDArray[np.float64]) -> float | None:
    """Return the percentage of 1 among 0 and 1 (N,), NaN left out; None when all are NaN."""
    known = correct[~np.isnan(correct)]
    return 100 * float(known.mean()) if len(known) else None


def accuracies(
    attributes: Sequence[str], readings: Sequence[AttributeValues], truth: Sequence[AttributeValues]
) -> dict[str, float | None]:
    """Return the percentage of correct readings of each attribute, keyed `<attribute>_accuracy`.

    An attribute is scored on the cases whose truth has it, and its accuracy is None where none has.
    """
    return {f"{name}_accuracy": accuracy(correct_readings(name, readings, truth)) for name in attributes}
