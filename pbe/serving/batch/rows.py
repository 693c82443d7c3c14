"""The rows of `pbe batch`, one for each picture to paint: from a CSV or JSONL file, or every box of a data set.

A row is read as text and checked when it is painted, so that a wrong row costs a line in errors.csv and not the batch.
What is wrong with the file itself, such as an unknown column, is an error before anything is painted.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pbe.dataset.opened_images import read_bytes_of
from pbe.errors import UserError
from pbe.serving.commands.output_files import LONGEST_NAME_BYTES
from pbe.types import Box, Mask

COLUMNS = ("name", "source", "mask", "box", "exemplar", "exemplar_mask", "label", "seed")
OTHERS = "others"  # JSONL: the other objects of the picture, a list of {"label": ..., "box": [...]}
NO_LABEL = "object"
SEPARATOR = "|"  # CSV: between several exemplars of one object; JSONL has a list

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Row:
    """One row as it stands in its file; `number` is its line, or its place among the boxes of a data set."""

    number: int
    fields: Mapping[str, Any]
    folder: Path = Path()  # paths are relative to it

    @property
    def name(self) -> str:
        """The name of the picture's file, without suffix."""
        return str(self.fields.get("name") or f"{self.number:06d}")


@dataclass(frozen=True)
class Task:
    """A row that has been checked: what to paint where. Either `mask` or `box` is set."""

    source: Path
    exemplars: tuple[Path, ...]  # pictures of one object
    label: str
    seed: int | None
    mask: Path | None = None
    box: Corners | None = None
    others: Sequence[tuple[str, Corners]] = field(default=())
    exemplar_masks: tuple[Path, ...] = ()  # none, or one for each exemplar

    @property
    def files(self) -> list[Path]:
        mask = [self.mask] if self.mask else []
        return [self.source, *self.exemplars, *self.exemplar_masks, *mask]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file, .jsonl or else CSV; its paths are relative to its folder.

    CSV fields are separated by commas, semicolons or tabs. Raises UserError when the file has no rows or an unknown
    column, a line cannot be read, or two rows have the same name.
    """
    text = _text(path)
    read = _jsonl_rows if path.suffix.casefold() in (".jsonl", ".ndjson") else _csv_rows
    rows = list(read(path, text))
    if not rows:
        raise UserError(f"{path}: has no rows")
    check_names(rows, str(path))
    return rows


def check_names(rows: Sequence[Row], where: str) -> None:
    """Raise UserError when a name cannot be a file's, or two rows have the same; case does not tell names apart."""
    seen: dict[str, int] = {}
    for row in rows:
        name = row.name
        if Path(name).name != name or "\\" in name or "\0" in name or len(name.encode()) > LONGEST_NAME_BYTES - 4:
            raise UserError(f"{where}: row {row.number}: {name!r:.80} cannot be the name of a file")
        if (first := seen.setdefault(name.casefold(), row.number)) != row.number:
            raise UserError(f"{where}: rows {first} and {row.number} have the same name {name!r}")


def task_of(row: Row) -> Task:
    """Return what a row asks for; raises UserError saying which field is missing or wrong."""
    fields = row.fields
    box = fields.get("box")
    if bool(fields.get("mask")) == bool(box):
        raise UserError("needs a mask or a box" if not box else "has a mask and a box: give one of them")
    others = fields.get(OTHERS) or []
    if not isinstance(others, list) or not all(isinstance(each, dict) for each in others):
        raise UserError(f'{OTHERS} is {others!r:.60}: give a list of {{"label": ..., "box": [...]}}')
    exemplars = _paths(row, "exemplar")
    masks = _paths(row, "exemplar_mask") if fields.get("exemplar_mask") else ()
    if masks and len(masks) != len(exemplars):
        raise UserError(f"{len(masks)} exemplar_mask for {len(exemplars)} exemplar: give one for each, or none")
    return Task(
        source=_path(row, "source"),
        exemplars=exemplars,
        exemplar_masks=masks,
        label=_label(fields.get("label")),
        seed=_seed(fields.get("seed")),
        mask=_path(row, "mask") if fields.get("mask") else None,
        box=_corners(box) if box else None,
        others=tuple((_label(each.get("label")), _corners(each.get("box"))) for each in others),
    )


def box_to_mask(corners: Corners, height: int, width: int) -> Mask:
    """Return the mask (H, W) of the pixels that a box touches; raises UserError when it has none in the picture."""
    x0, y0, x1, y1 = clipped_box(corners, height, width)
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    if not mask.any():
        shown = " ".join(f"{value:g}" for value in corners)
        raise UserError(f"the box {shown} has no pixel in the picture of {width} x {height} px; give x0 y0 x1 y1")
    return mask


def clipped_box(corners: Corners, height: int, width: int) -> Box:
    """Return the box of whole pixels around one between pixels, clipped to the picture."""
    lows, highs = np.floor(np.add(corners[:2], 1e-6)), np.ceil(np.subtract(corners[2:], 1e-6))
    x0, y0 = np.maximum(lows, 0).astype(int).tolist()
    x1, y1 = np.minimum(highs, (width, height)).astype(int).tolist()
    return x0, y0, max(x1, 0), max(y1, 0)


def _text(path: Path) -> str:
    try:
        return read_bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), skipinitialspace=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_columns(names, COLUMNS, str(path))
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                raise UserError(f"{path}: line {reader.line_num}: {len(values)} fields, but {len(names)} columns")
            stripped = (value.strip() for value in values)
            yield Row(reader.line_num, dict(zip(names, stripped, strict=True)), path.parent)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from None


def _jsonl_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number}: not JSON ({error})") from None
        if not isinstance(fields, dict):
            raise UserError(f"{path}: line {number}: holds {type(fields).__name__}, not a JSON object")
        _check_columns(list(fields), (*COLUMNS, OTHERS), f"{path}: line {number}")
        yield Row(number, fields, path.parent)


def _check_columns(names: Sequence[str], known: Sequence[str], where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{where}: unknown {unknown[0]!r:.60}; a row has {', '.join(known)}")


def _path(row: Row, key: str) -> Path:
    value = row.fields.get(key)
    if not value or not isinstance(value, str):
        raise UserError(f"{key} is missing" if not value else f"{key} is {value!r:.60}: give the path of an image")
    return row.folder / value


def _paths(row: Row, key: str) -> tuple[Path, ...]:
    value = row.fields.get(key)
    values = value.split(SEPARATOR) if isinstance(value, str) else value
    if not values or not isinstance(values, list) or not all(each and isinstance(each, str) for each in values):
        raise UserError(f"{key} is {value!r:.60}: give the path of an image" if value else f"{key} is missing")
    return tuple(row.folder / each.strip() for each in values)


def _label(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise UserError(f"label is {value!r:.60}: give a text")
    return " ".join((value or "").split()) or NO_LABEL


def _seed(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value), re.ASCII):
        raise UserError(f"seed is {value!r:.60}: give a whole number")
    return int(value)


def _corners(value: Any) -> Corners:
    parts = re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else value
    try:
        x0, y0, x1, y1 = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise UserError(f"box is {value!r:.60}: give four numbers, x0 y0 x1 y1") from None
    if not np.isfinite([x0, y0, x1, y1]).all():
        raise UserError(f"box is {value!r:.60}: give finite numbers")
    return x0, y0, x1, y1
