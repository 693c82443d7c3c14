"""What every reader of own data yields, and what they share: images, boxes, splits by name, where files are."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbe.dataset.images import image_size
from pbe.errors import UserError
from pbe.settings import Acquire

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif"))

Shares = tuple[float, float, float, float]


@dataclass(frozen=True)
class OwnBox:
    """One box: sides as shares of the image's, 0..1, before any check of their sense; its object's packed mask."""

    label: str
    xyxy: Shares
    is_occluded: bool = False
    is_truncated: bool = False
    is_group_of: bool = False
    is_depiction: bool = False
    object_mask: bytes | None = None


@dataclass(frozen=True)
class OwnImage:
    """One annotated image; `split` is None where nothing says which.

    `read` is given where the image is no file of its own; then `path` is what it is called.
    """

    path: Path
    split: str | None
    boxes: Sequence[OwnBox]
    read: Callable[[], bytes] | None = None


def folder_of(settings: Acquire) -> Path:
    """The folder that acquire.root names; raises UserError when it is none."""
    if not settings.root:
        raise UserError(f"acquire.root: not set; with acquire.source: {settings.source} it is the path of the folder")
    root = Path(settings.root)
    if not root.is_dir():
        raise UserError(f"acquire.root: {root} is no folder")
    return root


def split_in(path: Path) -> str | None:
    """The split that a file's or a folder's name gives, if any; the nearest name decides."""
    for part in reversed(path.parts):
        name = part.casefold()
        if "train" in name and "val" not in name:
            return "train"
        if "val" in name and "train" not in name:
            return "validation"
    return None


def sides_of(path: Path) -> tuple[float, float]:
    """Width and height of an image that the annotations give in pixels; 1 x 1 for one that acquire will report lost."""
    try:
        return image_size(path)
    except UserError:
        return 1, 1


def shares(xyxy: Sequence[float], sides: tuple[float, float]) -> Shares:
    """A box in pixels as shares of the image's sides."""
    (x0, y0, x1, y1), (width, height) = xyxy, sides
    return x0 / width, y0 / height, x1 / width, y1 / height


def numbers(values: Any, count: int | None, where: str) -> list[float]:
    """The values as `count` finite numbers; raises UserError saying `where` they are not."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        raise UserError(f"{where}: {values!r} are not {count} numbers")
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{where}: {values!r} are not all numbers") from None
    if not all(map(math.isfinite, found)):
        raise UserError(f"{where}: {values!r} are not all finite")
    return found


class ImageFinder:
    """Finds the file that an annotation means: by its path from one of the likely folders, else by its name alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_name[path.name].append(path)

    def __call__(self, name: str, beside: Path, split: str | None, said_in: str) -> Path:
        """Raises UserError when several files could be meant; a file that is nowhere is left for acquire to report."""
        likely = [folder / name for folder in (beside, self.root, self.root / "images", self.root / "JPEGImages")]
        for path in likely:
            if path.is_file():
                return path
        found = self._by_name[Path(name).name]
        of_split = [path for path in found if split and split_in(path.relative_to(self.root).parent) == split]
        found = of_split or found
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(self.root)) for path in found[:3])
            raise UserError(f"{said_in}: {name!r} may be {shown}; give its path from {self.root}")
        return found[0] if found else likely[1]
