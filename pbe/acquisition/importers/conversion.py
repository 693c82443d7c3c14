"""Own data told in OpenImages' columns, so that filter and all that follows need to know no other layout.

A file, folder or row that says train or val(idation) is taken at its word; where nothing says so, or all is called the
same, a share of the images drawn by the seed is for validation. Everything is read from `acquire.root`, and nothing is
written there.
"""

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pbe.acquisition.importers.annotations import OwnBox, OwnImage
from pbe.acquisition.importers.coco import read_coco
from pbe.acquisition.importers.csv_boxes import read_csv
from pbe.acquisition.importers.fiftyone_dataset import Database, read_fiftyone
from pbe.acquisition.importers.huggingface import read_huggingface
from pbe.acquisition.importers.mask_folders import read_masks
from pbe.acquisition.importers.voc import read_voc
from pbe.acquisition.importers.yolo import read_yolo
from pbe.dataset import openimages
from pbe.dataset.openimages import SPLITS, draw_ranks, image_key
from pbe.errors import UserError
from pbe.settings import Acquire

READERS: dict[str, Callable[[Acquire, Counter[str]], Iterator[OwnImage]]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "csv": read_csv,
    "masks": read_masks,
    "huggingface": read_huggingface,
}
SOURCES = frozenset((*READERS, "fiftyone"))

_MASK_SCHEMA = pa.schema(zip(openimages.MASK_COLUMNS, (pa.string(), pa.int32(), pa.binary()), strict=True))
_MASK_BATCH = 10_000


class Described(NamedTuple):
    """Each image by its key, a file or what reads it; and what was left out, by reason."""

    images: dict[str, Path | Callable[[], bytes]]
    skipped: dict[str, int]


def describe(settings: Acquire, seed: int, out: Path, database: Database | None = None) -> Described:
    """Write `{out}/annotations/`: box annotations and classes as CSV files, objects' masks as parquet.

    `database` is where FiftyOne's datasets are, for that source. Raises UserError naming the file and the row or key
    that is missing or makes no sense.
    """
    skipped = Counter[str]()
    found = list(_read(settings, skipped, database))
    if not any(image.boxes for image in found):
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()) if count)
        raise UserError(
            f"{settings.root}: no boxes found in the {settings.source} layout{counts and f' ({counts})'}; "
            "docs/own-data.md shows what it looks like"
        )
    ids = _image_ids([image.path for image in found])
    images = sorted(found, key=lambda image: ids[image.path])  # in their order the filter streams
    splits = _splits(images, [ids[image.path] for image in images], settings.validation_frac, seed)
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        of_split = [(ids[i.path], i.boxes) for i, s in zip(images, splits, strict=True) if s == split]
        _write_boxes(out / "annotations" / openimages.BOX_FILES[split].name, settings.source, of_split)
        if any(box.object_mask for _, boxes in of_split for box in boxes):
            _write_masks(out / "annotations" / openimages.MASK_FILES[split].name, of_split)
    _write_classes(out / "annotations" / openimages.CLASSES_FILE.name, images)
    files = {image_key(s, ids[i.path]): i.read or i.path for i, s in zip(images, splits, strict=True)}
    return Described(files, {reason: count for reason, count in sorted(skipped.items()) if count})


def _read(settings: Acquire, skipped: Counter[str], database: Database | None) -> Iterator[OwnImage]:
    if settings.source != "fiftyone":
        return READERS[settings.source](settings, skipped)
    if database is None:
        raise UserError("acquire.source: fiftyone needs the address of FiftyOne's MongoDB")
    return read_fiftyone(settings, skipped, database)


def _write_boxes(path: Path, source: str, images: Iterable[tuple[str, Sequence[OwnBox]]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(openimages.BOX_COLUMNS)
        for image_id, box in ((image_id, box) for image_id, boxes in images for box in boxes):
            x0, y0, x1, y1 = (f"{share:.9f}" for share in box.xyxy)
            flags = (box.is_occluded, box.is_truncated, box.is_group_of, box.is_depiction)
            writer.writerow([image_id, source, box.label, 1, x0, x1, y0, y1, *(int(flag) for flag in flags), 0])


def _write_masks(path: Path, images: Iterable[tuple[str, Sequence[OwnBox]]]) -> None:
    """The masks of those boxes that have one, by the number of the box among its image's rows."""
    numbers = Counter[str]()
    rows: list[tuple[str, int, bytes]] = []
    with pq.ParquetWriter(path, _MASK_SCHEMA, compression="zstd") as writer:
        for image_id, boxes in images:
            for number, box in enumerate(boxes, numbers[image_id]):
                rows += [(image_id, number, box.object_mask)] if box.object_mask else []
            numbers[image_id] += len(boxes)
            if len(rows) >= _MASK_BATCH:
                writer.write_table(_mask_table(rows))
                rows = []
        writer.write_table(_mask_table(rows))


def _mask_table(rows: Sequence[tuple[str, int, bytes]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(openimages.MASK_COLUMNS, row, strict=True)) for row in rows], _MASK_SCHEMA)


def _write_classes(path: Path, images: Iterable[OwnImage]) -> None:
    labels = sorted({box.label for image in images for box in image.boxes})
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([openimages.CLASS_COLUMNS, *((label, label) for label in labels)])


def _image_ids(paths: Sequence[Path]) -> dict[Path, str]:
    """File names without suffix, or paths below their common folder with __ for / where two images share a name."""
    by_stem: dict[str, set[Path]] = defaultdict(set)
    for path in paths:
        by_stem[path.stem].add(path)
    if all(len(found) == 1 for found in by_stem.values()):
        return {path: path.stem for path in paths}
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: "__".join(path.absolute().relative_to(root).with_suffix("").parts) for path in paths}


def _splits(images: Sequence[OwnImage], ids: Sequence[str], validation_frac: float, seed: int) -> list[str]:
    """What is said of each image, else a draw by its id and the seed; of two images and more each split gets one."""
    said = len({image.split for image in images}) > 1
    ranks = draw_ranks([f"split:{image_id}" for image_id in ids], seed)
    is_drawn = np.array([not (said and image.split) for image in images])
    is_validation = np.where(is_drawn, ranks < validation_frac * 2**64, [i.split == "validation" for i in images])
    for wanted, place in ((True, ranks.argmin()), (False, ranks.argmax())):
        if is_drawn[place] and len(images) > 1 and not (is_validation == wanted).any():
            is_validation[place] = wanted
    return ["validation" if each else "train" for each in is_validation]
