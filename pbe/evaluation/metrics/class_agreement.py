"""Class agreement: whether an independent classifier sees the exemplar's class in the repainted box.

    argmax over classes c of  cosine(features of the box, mean of the unit features of class c)

The classifier is that of the nearest class mean (Mensink et al., "Distance-Based Image Classification: Generalizing to
New Classes at Near-Zero Cost", 2013) on features of an encoder that the painter has never seen. The means come from
other exemplars: the one that was painted is left out, in every case that has it, so that a copy of the exemplar is not
its own evidence. It is defined where labels are known and a class has two exemplars or more. The exemplars themselves,
classified in the same way, show the most that an edit can reach.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassMeans:
    """Labelled exemplars: `units` (N, D) of unit norm, their labels, and the box that each was cropped from."""

    units: Floats
    labels: tuple[str, ...]
    box_ids: tuple[str, ...]

    @classmethod
    def of(cls, features: Features, labels: Sequence[str], box_ids: Sequence[str]) -> "ClassMeans":
        """Return the classifier of exemplars with features (N, D); a box that occurs several times counts once.

        Exemplars without a label are left out. Raises ValueError when the lengths differ.
        """
        if not len(features) == len(labels) == len(box_ids):
            raise ValueError(f"{len(features)} features, {len(labels)} labels, {len(box_ids)} boxes")
        first = {box: n for n, box in reversed(list(enumerate(box_ids))) if labels[n]}
        rows = sorted(first.values())
        return cls(_units(features[rows]), tuple(labels[n] for n in rows), tuple(box_ids[n] for n in rows))

    @cached_property
    def digest(self) -> str:
        """A digest, 32 hex digits, of the exemplars."""
        names = repr((self.labels, self.box_ids)).encode()
        return hashlib.blake2b(names + self.units.tobytes(), digest_size=16).hexdigest()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted(set(self.labels)))

    def agreement(self, features: Features, labels: Sequence[str], box_ids: Sequence[str]) -> Floats:
        """Return 100 where features (N, D) are nearest to the mean of their label's class, otherwise 0.

        The exemplar `box_ids[n]` is left out of the means. NaN where the label is unknown, or no other exemplar has it,
        or it is the only class.
        """
        rows = zip(_units(features), labels, box_ids, strict=True)
        return np.array([self._agrees(unit, label, box_id) for unit, label, box_id in rows], np.float64)

    def _agrees(self, unit: Floats, label: str, box_id: str) -> float:
        sums, counts = self._without(box_id)
        known = counts > 0
        if label not in self.classes or not known[self.classes.index(label)] or known.sum() < 2:
            return float("nan")
        cosines = np.where(known, sums @ unit / np.maximum(np.linalg.norm(sums, axis=1), 1e-12), -np.inf)
        return 100.0 * (self.classes[int(cosines.argmax())] == label)

    def _without(self, box_id: str) -> tuple[Floats, NDArray[np.int64]]:
        """Return the sum of units (C, D) and the number of exemplars (C,) of each class, without one box."""
        sums, counts = self._sums
        if box_id not in self._row_of_box:
            return sums, counts
        row = self._row_of_box[box_id]
        index = self.classes.index(self.labels[row])
        sums, counts = sums.copy(), counts.copy()
        sums[index] -= self.units[row]
        counts[index] -= 1
        return sums, counts

    @cached_property
    def _row_of_box(self) -> dict[str, int]:
        return {box_id: row for row, box_id in enumerate(self.box_ids)}

    @cached_property
    def _sums(self) -> tuple[Floats, NDArray[np.int64]]:
        members = np.array([[label == name for label in self.labels] for name in self.classes], np.float64)
        members = members.reshape(len(self.classes), len(self.labels))
        return members @ self.units, members.sum(1).astype(np.int64)


def _units(features: Features) -> Floats:
    x = features.astype(np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
