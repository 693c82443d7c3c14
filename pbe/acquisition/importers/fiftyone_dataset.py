"""A FiftyOne dataset: the boxes and masks of one of its fields of Detections or Polylines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pbe.acquisition.importers.annotations import ImportedImage, numbers
from pbe.acquisition.importers.placement import (
    Corners,
    Frame,
    ImportCounts,
    Outline,
    PixelBox,
    Sides,
    clean_label,
    frame_of,
    place_boxes,
    refuse_pixels,
)
from pbe.acquisition.importers.segmentations import polygon_outline
from pbe.acquisition.importers.split_names import split_word
from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.fiftyone_default import default_database_folder, running_default_database
from pbe.settings import Acquire

_FLAGS = ("is_occluded", "is_truncated", "is_group_of", "is_depiction")


class Database(NamedTuple):
    """Where FiftyOne's datasets are: the address of a MongoDB, and the folder of FiftyOne's own files.

    `is_projects` says that it is the project's own: a dataset that it lacks is sought in FiftyOne's default database.
    """

    uri: str
    home: Path
    is_projects: bool = False


def read_fiftyone(settings: Acquire, counts: ImportCounts, database: Database) -> Iterator[ImportedImage]:
    """Yield the images of the dataset that acquire.root names; a tag of a sample says its split, iscrowd IsGroupOf.

    Raises UserError naming the dataset or the field that does not exist, the databases that were searched, or a sample
    that is not an image.
    """
    name = str(settings.root)
    with connected_fiftyone(database.uri, database.home) as fo:
        known = fo.list_datasets()
        if name in known:
            yield from _images(fo, name, settings, counts)
            return
    searched = f"existing datasets in {database.home if database.is_projects else database.uri}: {_shown(known)}"
    if not database.is_projects or not default_database_folder().is_dir():
        raise UserError(f"acquire.root: no FiftyOne dataset is called {name!r}; {searched}")
    with running_default_database() as uri, connected_fiftyone(uri, database.home) as fo:
        known = fo.list_datasets()
        if name not in known:
            raise UserError(
                f"acquire.root: no FiftyOne dataset is called {name!r}; {searched}; "
                f"in FiftyOne's default database {default_database_folder()}: {_shown(known)}"
            )
        yield from _images(fo, name, settings, counts)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) or "none"


def _images(fo: Any, name: str, settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    field = settings.fiftyone.field
    dataset = fo.load_dataset(name)
    kinds = {key: getattr(kind, "document_type", None) for key, kind in dataset.get_field_schema().items()}
    if kinds.get(field) not in (fo.Detections, fo.Polylines):
        others = [key for key, kind in kinds.items() if kind in (fo.Detections, fo.Polylines)]
        raise UserError(
            f"acquire.fiftyone.field: {name!r} has no field {field!r} of Detections or Polylines; "
            f"those that are: {_shown(others)}"
        )
    if dataset.media_type not in ("image", None):
        raise UserError(f"acquire.root: FiftyOne dataset {name!r} contains {dataset.media_type}, not images")
    for sample in dataset.select_fields(field).iter_samples():
        where, split = f"{name}: {sample.filepath}", _split(sample.tags)
        labels = getattr(sample[field], "detections", None) or getattr(sample[field], "polylines", None) or []
        frame = frame_of(Path(sample.filepath), sample.filepath, None, where) if labels else Frame(None)
        sides = frame.sides or (1.0, 1.0)
        boxes = [_box(label, sides, where) for label in labels]
        yield ImportedImage(Path(sample.filepath), split, place_boxes(boxes, Frame(sides), counts))


def _box(label: Any, sides: Sides, where: str) -> PixelBox:
    name = clean_label(label.label, where)
    flags = {flag for flag in _FLAGS if _value(label, flag)}
    flags |= {"is_group_of"} if _value(label, "iscrowd") else set()
    points = _value(label, "points")
    if points is not None:
        xyxy, outline = _polyline(label, points, sides, where)
    else:
        xyxy = _corners(label.bounding_box, sides, where)
        outline = _mask_outline(label.get_mask(), xyxy) if label.has_mask else None
    return PixelBox(name, xyxy, frozenset(flags), outline)


def _corners(bounding_box: Any, sides: Sides, where: str) -> Corners:
    if bounding_box is None:
        raise UserError(f"{where}: a detection has no bounding_box")
    x, y, width, height = numbers(list(bounding_box), 4, f"{where}: bounding_box")
    refuse_pixels((x, y, x + width, y + height), where)
    return x * sides[0], y * sides[1], (x + width) * sides[0], (y + height) * sides[1]


def _polyline(label: Any, shapes: Any, sides: Sides, where: str) -> tuple[Corners, Outline | None]:
    """Return the bounds of a polyline and, where it is closed, what packs the region that it encloses."""
    polygons = [numbers([value for point in shape for value in point], None, f"{where}: points") for shape in shapes]
    flat = [value for polygon in polygons for value in polygon]
    if not flat or len(flat) % 2:
        raise UserError(f"{where}: a polyline has no points x, y")
    refuse_pixels(flat, where)
    placed = [[value * side for value, side in zip(p, sides * (len(p) // 2), strict=True)] for p in polygons]
    xs, ys = flat[::2], flat[1::2]
    xyxy = min(xs) * sides[0], min(ys) * sides[1], max(xs) * sides[0], max(ys) * sides[1]
    is_region = (_value(label, "closed") or _value(label, "filled")) and all(len(p) >= 6 for p in placed)
    return xyxy, polygon_outline(placed, where) if is_region else None


def _mask_outline(mask: NDArray[np.generic], xyxy: Corners) -> Outline:
    """Return what packs a detection's mask, which covers its whole box, inside the clipped box."""
    (x0, y0, x1, y1), (height, width) = xyxy, mask.shape[:2]

    def pack(clipped: Corners) -> bytes | None:
        columns = [round((x - x0) / (x1 - x0) * width) for x in (clipped[0], clipped[2])]
        rows = [round((y - y0) / (y1 - y0) * height) for y in (clipped[1], clipped[3])]
        inside = mask[rows[0] : rows[1], columns[0] : columns[1]]
        return pack_mask(inside) if np.any(inside) else None

    return pack


def _value(label: Any, name: str) -> Any:
    return label[name] if label.has_field(name) else None


def _split(tags: list[str]) -> str | None:
    return next((split for split in map(split_word, tags) if split), None)
