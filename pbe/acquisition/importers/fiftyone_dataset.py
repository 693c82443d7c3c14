"""A FiftyOne dataset: the boxes of one of its Detections fields, and their instance masks where they have any."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pbe.acquisition.importers.annotations import OwnBox, OwnImage, split_in
from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.settings import Acquire

_FLAGS = ("is_occluded", "is_truncated", "is_group_of", "is_depiction")


class Database(NamedTuple):
    """Where FiftyOne's datasets are: the address of a MongoDB, and the folder of FiftyOne's own files."""

    uri: str
    home: Path


def read_fiftyone(settings: Acquire, skipped: Counter[str], database: Database) -> Iterator[OwnImage]:
    """Images of the dataset that acquire.root names; a sample's tags say its split, iscrowd becomes IsGroupOf.

    Raises UserError naming the dataset or the field that is not there, or a sample that is no image.
    """
    name, field = settings.root, settings.fiftyone.field
    with connected_fiftyone(database.uri, database.home) as fo:
        known = fo.list_datasets()
        if name not in known:
            shown = ", ".join(known[:5]) or "none"
            raise UserError(f"acquire.root: no FiftyOne dataset is called {name!r}; those here: {shown}")
        dataset = fo.load_dataset(name)
        kind = dataset.get_field(field)
        if kind is None or getattr(kind, "document_type", None) is not fo.Detections:
            raise UserError(f"acquire.fiftyone.field: {name!r} has no field {field!r} of Detections")
        if dataset.media_type not in ("image", None):
            raise UserError(f"acquire.root: FiftyOne dataset {name!r} is of {dataset.media_type}, not of images")
        for sample in dataset.select_fields(field).iter_samples():
            found = sample[field].detections if sample[field] else []
            boxes = [_box(detection, f"{name}: {sample.filepath}", skipped) for detection in found]
            if boxes:
                yield OwnImage(Path(sample.filepath), _split(sample.tags), boxes)


def _box(detection: Any, where: str, skipped: Counter[str]) -> OwnBox:
    if detection.label is None or detection.bounding_box is None:
        raise UserError(f"{where}: a detection without label or bounding_box")
    x, y, width, height = detection.bounding_box
    flags = {flag: bool(_value(detection, flag)) for flag in _FLAGS}
    flags["is_group_of"] |= bool(_value(detection, "iscrowd"))
    mask = detection.get_mask() if detection.has_mask else None
    packed = None
    if mask is not None:
        packed = pack_mask(mask) if np.any(mask) else None
        skipped["empty_mask"] += packed is None
    return OwnBox(detection.label, (x, y, x + width, y + height), **flags, object_mask=packed)


def _value(detection: Any, name: str) -> Any:
    return detection[name] if detection.has_field(name) else None


def _split(tags: list[str]) -> str | None:
    return next((split for split in (split_in(Path(tag)) for tag in tags) if split), None)
