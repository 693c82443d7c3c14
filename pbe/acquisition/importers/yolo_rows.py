"""The rows of YOLO's label files: boxes, polygons, oriented boxes and poses, with or without confidence and track id.

Nothing in a row says which it is. data.yaml's kpt_shape does for poses; else the rows of the whole set decide, and a
row that stays ambiguous is an error.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pbe.acquisition.importers.annotations import numbers
from pbe.acquisition.importers.placement import refuse_pixels
from pbe.acquisition.importers.text_files import read_lines
from pbe.errors import UserError

_NUM_BOX = 4
_SLACK = 0.01  # of a side that a box or a point may be outside another


class YoloRow(NamedTuple):
    """One row: its class, its numbers, whether the last is written as a whole number, and where it is."""

    label: int
    numbers: list[float]
    ends_whole: bool
    where: str


class Shape(NamedTuple):
    """What a row's numbers mean: x, y, width and height, or a polygon's corners; an oriented box has no outline."""

    numbers: list[float]
    is_polygon: bool
    has_outline: bool = False


def read_rows(path: Path, names: Mapping[int, str]) -> Iterator[YoloRow]:
    """Yield the rows of a label file; raises UserError naming the line that is wrong."""
    for number, line in read_lines(path):
        words = line.replace(",", " ").split()
        where = f"{path}: line {number}"
        values = numbers(words, None, where)
        if values[0] % 1 or int(values[0]) not in names:
            raise UserError(f"{where}: class {words[0]!r} is not among the names of data.yaml")
        ends_whole = words[-1].isdecimal()
        tail = 2 if ends_whole else 1  # a track id is no share
        refuse_pixels(values[1 : max(5, len(values) - tail)], where)
        yield YoloRow(int(values[0]), values[1:], ends_whole, where)


class Layout(NamedTuple):
    """How to read the rows of a set."""

    num_keypoint_numbers: int
    six_are_tracked: bool | None  # box, confidence and track id, or else a triangle; None: nothing tells

    @classmethod
    def of(cls, rows: Iterable[YoloRow], num_keypoint_numbers: int) -> Self:
        """Decide by all rows of a set; raises UserError naming a row when the rows may be poses."""
        rows = list(rows)
        if not num_keypoint_numbers:
            _refuse_poses(rows)
        six = [row for row in rows if len(row.numbers) == 6]
        has_polygons = any(len(row.numbers) > 6 for row in rows)
        tracked = all(row.ends_whole and _may_be_box(row.numbers) and 0 <= row.numbers[4] <= 1 for row in six)
        triangles = all(_may_be_triangle(row.numbers) for row in six)
        is_ambiguous = tracked and triangles and not has_polygons
        return cls(num_keypoint_numbers, None if is_ambiguous else tracked and not triangles)

    def shape_of(self, row: YoloRow) -> Shape:
        """Return what a row means; raises UserError naming it when its numbers fit nothing or two meanings."""
        found, num = row.numbers, len(row.numbers)
        if self.num_keypoint_numbers:
            if num - _NUM_BOX - self.num_keypoint_numbers not in (0, 1, 2):
                raise UserError(
                    f"{row.where}: {num} numbers are not a box and the {self.num_keypoint_numbers} numbers of kpt_shape"
                )
            return Shape(found[:4], False)
        if num in (4, 5):  # the fifth is a confidence or a track id
            return Shape(found[:4], False)
        if num == 6 and self.six_are_tracked is None:
            raise UserError(
                f"{row.where}: 6 numbers may be a triangle, or a box with confidence and track id; remove the last two"
            )
        if num == 6 and self.six_are_tracked:
            return Shape(found[:4], False)
        if num < 6:
            raise UserError(f"{row.where}: {num} numbers are neither a box (x y w h) nor a polygon")
        if num % 2 and not 0 <= found[-1] <= 1 and not row.ends_whole:
            raise UserError(f"{row.where}: {num} numbers are neither a box (x y w h) nor a polygon")
        corners = found[: num - num % 2]  # an odd last number is a confidence or a track id
        if len(corners) > 6 and found[-1] > 1 + _SLACK and row.ends_whole and not num % 2:
            corners = corners[:-2]  # a confidence and a track id
        return Shape(corners, True, has_outline=not _is_oriented_box(corners))


def _may_be_box(found: list[float]) -> bool:
    x, y, w, h = found[:4]
    return min(x - w / 2, y - h / 2) >= -_SLACK and max(x + w / 2, y + h / 2) <= 1 + _SLACK and w > 0 and h > 0


def _may_be_triangle(found: list[float]) -> bool:
    a, b, c = np.reshape(found[:6], (3, 2))
    area = abs((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0])
    return bool(area > 1e-9) and max(found) <= 1 + _SLACK and min(found) >= -_SLACK


def _is_oriented_box(corners: list[float]) -> bool:
    """Return whether four corners make a parallelogram that is not upright, as a rotated rectangle's do."""
    if len(corners) != 8:
        return False
    a, b, c, d = _points(corners)
    closes = np.abs(a + c - b - d).max() < 1e-3
    is_upright = min(np.abs(b - a).min(), np.abs(c - b).min()) < 1e-3
    return bool(closes and not is_upright)


def _refuse_poses(rows: list[YoloRow]) -> None:
    """Raise UserError when all rows have one length and the box of their first four numbers holds the others."""
    lengths = {len(row.numbers) for row in rows}
    if len(lengths) != 1 or min(lengths) < 8:
        return
    if all(any(_holds(row.numbers, step) for step in (2, 3)) for row in rows):
        raise UserError(
            f"{rows[0].where}: {len(rows[0].numbers)} numbers look like a box and keypoints; "
            "give kpt_shape in data.yaml, such as kpt_shape: [17, 3]"
        )


def _holds(found: list[float], step: int) -> bool:
    """Return whether the box of a row holds all its further points; (0, 0) stands for a point that is not visible."""
    rest = found[4:]
    if len(rest) % step or not _may_be_box(found):
        return False
    if step == 3 and not set(rest[2::3]) <= {0.0, 1.0, 2.0}:
        return False
    x, y, w, h = found[:4]
    points = np.stack([rest[0::step], rest[1::step]], axis=1)
    points = points[points.any(axis=1)]
    return bool((np.abs(points - (x, y)) <= np.array([w, h]) / 2 + _SLACK).all())


def _points(corners: list[float]) -> NDArray[np.float64]:
    return np.reshape(np.asarray(corners, np.float64), (-1, 2))
