"""A Hugging Face dataset on disk (`save_to_disk`): a column of images, and their boxes as the hub's detection sets.

The hub's usual form is `objects: {bbox, category}`, lists of boxes and classes; ClassLabel gives the classes' names.
The images stay in the dataset's memory-mapped files: of each only the header is read until acquire fetches it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pbe.acquisition.importers.annotations import (
    OwnBox,
    OwnImage,
    Shares,
    folder_of,
    numbers,
    shares,
    sides_of,
    split_in,
)
from pbe.dataset.images import image_size
from pbe.errors import UserError
from pbe.settings import Acquire, HuggingFace


def read_huggingface(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images of a dataset, or of a DatasetDict's train and validation; a split that is neither is left out.

    Raises UserError naming the folder, the column or the row that is missing or makes no sense.
    """
    import datasets  # seconds, which no other source has to wait for

    root = folder_of(settings)
    try:
        loaded = datasets.load_from_disk(root)
    except FileNotFoundError:
        raise UserError(f"{root}: no dataset written by save_to_disk here") from None
    if not isinstance(loaded, datasets.DatasetDict):
        yield from _rows(loaded, None, root, settings.huggingface)
        return
    for name, dataset in loaded.items():
        split = split_in(Path(name))
        if split is None:
            skipped[f"images of split {name}"] += dataset.num_rows
        else:
            yield from _rows(dataset, split, root / name, settings.huggingface)


def _rows(dataset: Any, split: str | None, folder: Path, options: HuggingFace) -> Iterator[OwnImage]:
    for key, column in (("image", options.image), ("objects", options.objects)):
        if column not in dataset.column_names:
            found = ", ".join(dataset.column_names)
            raise UserError(f"{folder}: no column {column!r} (acquire.huggingface.{key}); columns found: {found}")
    names = _class_names(dataset.features[options.objects], options.category)
    images, described = dataset.data.column(options.image), dataset.select_columns([options.objects])
    for row, objects in enumerate(described):
        where = f"{folder}: row {row}"
        image = _Picture(images[row], folder / f"{folder.name}-{row:08d}", where)
        boxes = _boxes(objects[options.objects], image, options, names, where)
        if boxes:
            yield OwnImage(image.path, split, boxes, None if image.content is None else image.read)


class _Picture:
    """One image of the column: bytes in the dataset, or the path of a file."""

    def __init__(self, value: Any, name: Path, where: str) -> None:
        found = dict(value.items()) if isinstance(value, pa.StructScalar) and value.is_valid else {}
        content, path = found.get("bytes"), found.get("path")
        self.content = content if content is not None and content.is_valid else None
        place = (path.as_py() if path is not None else None) or ""
        if self.content is None and not place:
            raise UserError(f"{where}: no image; the column must be one of datasets.Image")
        self.path = Path(place) if self.content is None else name

    def sides(self) -> tuple[float, float]:
        if self.content is None:
            return sides_of(self.path)
        try:
            return image_size(pa.BufferReader(self.content.as_buffer()), str(self.path))
        except UserError:  # which acquire will report lost
            return 1, 1

    def read(self) -> bytes:
        assert self.content is not None
        return bytes(self.content.as_py())


def _class_names(feature: Any, category: str) -> Sequence[str] | None:
    """The classes' names, where the column of categories is a ClassLabel."""
    feature = getattr(feature, "feature", feature)  # a list of dicts
    feature = feature[0] if isinstance(feature, list) else feature
    inner = feature.get(category) if isinstance(feature, Mapping) else None
    inner = getattr(inner, "feature", inner)  # a dict of lists
    return getattr(inner[0] if isinstance(inner, list) else inner, "names", None)


def _boxes(
    objects: Any, image: _Picture, options: HuggingFace, names: Sequence[str] | None, where: str
) -> list[OwnBox]:
    """The boxes of a row: objects as lists in a dict, or as dicts in a list."""
    for key in (options.bbox, options.category):
        if any(key not in part for part in ([objects] if isinstance(objects, Mapping) else objects or [])):
            raise UserError(f"{where}: its objects have no {key!r}; name it by acquire.huggingface")
    if isinstance(objects, Mapping):
        found = list(zip(objects[options.bbox] or [], objects[options.category] or [], strict=True))
    else:
        found = [(each[options.bbox], each[options.category]) for each in objects or []]
    if not found:
        return []
    sides = (1.0, 1.0) if options.normalised else image.sides()
    return [OwnBox(_label(c, names, where), _xyxy(list(b), sides, options, where)) for b, c in found]


def _label(category: Any, names: Sequence[str] | None, where: str) -> str:
    if category is None or (names is not None and not 0 <= int(category) < len(names)):
        raise UserError(f"{where}: category {category!r} is not among the classes")
    return str(category) if names is None else names[int(category)]


def _xyxy(bbox: Any, sides: tuple[float, float], options: HuggingFace, where: str) -> Shares:
    a, b, c, d = numbers(bbox, 4, f"{where}: {options.bbox}")
    return shares((a, b, a + c, b + d) if options.box_format == "xywh" else (a, b, c, d), sides)
