"""What every importer yields, and what importers share: images, boxes, splits by name, and how files are found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbe.errors import UserError
from pbe.settings import Acquire

Shares = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImportedBox:
    """One box, as shares 0..1 of the image's sides, which the importer does not check; and its object's packed mask."""

    label: str
    xyxy: Shares
    is_occluded: bool = False
    is_truncated: bool = False
    is_group_of: bool = False
    is_depiction: bool = False
    object_mask: bytes | None = None


@dataclass(frozen=True)
class ImportedImage:
    """One annotated image; `split` is None where the data name none.

    An image inside another file has a function `read`, and `path` is then only its name. `found_by` is the
    form in which its annotated `name` was found (`image_names.Found`).
    """

    path: Path
    split: str | None
    boxes: Sequence[ImportedBox]
    read: Callable[[], bytes] | None = None
    found_by: str = ""
    name: str = ""


def folder_of(settings: Acquire) -> Path:
    """Return the folder that acquire.root names; raises UserError when there is none."""
    if not settings.root:
        raise UserError(f"acquire.root: not set; with acquire.source: {settings.source} it is the path of the folder")
    root = Path(settings.root)
    if not root.is_dir():
        raise UserError(f"acquire.root: {root} is not a folder")
    return root


def numbers(values: Any, count: int | None, where: str) -> list[float]:
    """Return the values as `count` finite numbers (None: any count); raises UserError naming `where` they are not."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        raise UserError(f"{where}: {values!r:.80} are not {count} numbers")
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {values!r:.80} are not all numbers") from None
    if not all(map(math.isfinite, found)):
        raise UserError(f"{where}: {values!r:.80} are not all finite")
    return found
