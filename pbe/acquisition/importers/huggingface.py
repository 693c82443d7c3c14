"""A Hugging Face dataset on disk: a column of images, and their boxes as the detection datasets of the Hub have them.

The usual form is `objects: {bbox, category}`, lists of boxes and classes; ClassLabel gives the classes' names. The
folder holds what `save_to_disk` wrote, or Parquet or Arrow files, or images with metadata.jsonl (an "imagefolder"). The
images stay in their files: of each only the header is read until acquire fetches it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pbe.acquisition.importers.annotations import ImportedImage, folder_of, numbers
from pbe.acquisition.importers.huggingface_files import Row, Rows, open_rows
from pbe.acquisition.importers.placement import (
    Corners,
    Frame,
    ImportCounts,
    PixelBox,
    UnitCheck,
    clean_label,
    frame_of,
    place_boxes,
    refuse_pixels,
)
from pbe.errors import UserError
from pbe.settings import Acquire, HuggingFace

_HINT_NORMALISED = "; or set acquire.huggingface.normalised: true"
_HINT_PIXELS = "; or set acquire.huggingface.normalised: false"


def read_huggingface(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images of a dataset; a split that is none of train, validation and test is left out and counted.

    Raises UserError naming the folder, the column or the row that is missing or wrong.
    """
    options, units = settings.huggingface, UnitCheck(_HINT_NORMALISED)
    for rows in open_rows(folder_of(settings), options, counts):
        for row in rows:
            boxes = _boxes(row, options, rows)
            if not boxes:
                yield ImportedImage(row.picture.path, rows.split, ())
                continue
            frame = Frame((1.0, 1.0)) if options.normalised else _frame(row)
            for box in boxes:
                if options.normalised:
                    refuse_pixels(box.xyxy, row.where, _HINT_PIXELS)
                else:
                    units.add(box.xyxy, row.where)
            placed = place_boxes(boxes, frame, counts)
            yield ImportedImage(row.picture.path, rows.split, placed, row.picture.read)
    units.finish()


def _frame(row: Row) -> Frame:
    picture = row.picture
    content = picture.content
    file = picture.path if content is None else pa.BufferReader(content)
    return frame_of(file, str(picture.path), row.stated, row.where)


def _boxes(row: Row, options: HuggingFace, rows: Rows) -> list[PixelBox]:
    """Return the boxes of a row: objects as lists in a dict, or as dicts in a list."""
    objects = row.objects
    parts = [objects] if isinstance(objects, Mapping) else objects or []
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f"{row.where}: {options.objects} are neither a dict of lists nor a list of dicts")
    for key in (options.bbox, options.category):
        if any(key not in part for part in parts):
            raise UserError(f"{row.where}: its objects have no {key!r}; set its name in acquire.huggingface")
    if isinstance(objects, Mapping):
        boxes, categories = (objects[key] or [] for key in (options.bbox, options.category))
        if not isinstance(boxes, list) or not isinstance(categories, list) or len(boxes) != len(categories):
            raise UserError(f"{row.where}: {options.bbox} and {options.category} are not lists of one length")
    else:
        boxes, categories = ([part[key] for part in parts] for key in (options.bbox, options.category))
    pairs = zip(boxes, categories, strict=True)
    return [PixelBox(_label(c, rows.class_names, row.where), _xyxy(b, options, row.where)) for b, c in pairs]


def _label(category: Any, names: Sequence[str] | None, where: str) -> str:
    if names is None:
        return clean_label(category, where)
    if not isinstance(category, int | float) or category % 1 or not 0 <= category < len(names):
        raise UserError(f"{where}: category {category!r} is not among the classes")
    return clean_label(names[int(category)], where)


def _xyxy(bbox: Any, options: HuggingFace, where: str) -> Corners:
    a, b, c, d = numbers(bbox, 4, f"{where}: {options.bbox}")
    return (a, b, a + c, b + d) if options.box_format == "xywh" else (a, b, c, d)
