"""Your own data, converted to OpenImages' columns, so that the later stages need to know no other layout.

The split is the one that a file, folder or row names (train, val, validation). Where none is named, or the same one
everywhere, the seed draws a share of the images for validation, or of the groups that `acquire.group_file` states.
Nothing is written to `acquire.root`.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pbe.acquisition.importers.annotations import ImportedBox, ImportedImage
from pbe.acquisition.importers.coco import read_coco
from pbe.acquisition.importers.csv_boxes import read_csv
from pbe.acquisition.importers.cvat import read_cvat
from pbe.acquisition.importers.datumaro import read_datumaro
from pbe.acquisition.importers.fiftyone_dataset import Database, read_fiftyone
from pbe.acquisition.importers.huggingface import read_huggingface
from pbe.acquisition.importers.image_groups import groups_of
from pbe.acquisition.importers.image_identity import image_ids, select_images
from pbe.acquisition.importers.label_studio import read_label_studio
from pbe.acquisition.importers.labelme import read_labelme
from pbe.acquisition.importers.mask_folders import read_masks
from pbe.acquisition.importers.placement import ImportCounts
from pbe.acquisition.importers.split_drawing import draw_splits
from pbe.acquisition.importers.voc import read_voc
from pbe.acquisition.importers.yolo import read_yolo
from pbe.dataset import openimages
from pbe.dataset.image_groups import GROUP_COLUMNS, GROUP_FILES
from pbe.dataset.openimages import SPLITS, image_key
from pbe.errors import UserError
from pbe.settings import Acquire

READERS: dict[str, Callable[[Acquire, ImportCounts], Iterator[ImportedImage]]] = {
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "csv": read_csv,
    "masks": read_masks,
    "huggingface": read_huggingface,
    "cvat": read_cvat,
    "datumaro": read_datumaro,
    "labelme": read_labelme,
    "label_studio": read_label_studio,
}
SOURCES = frozenset((*READERS, "fiftyone"))

_MASK_SCHEMA = pa.schema(zip(openimages.MASK_COLUMNS, (pa.string(), pa.int32(), pa.binary()), strict=True))
_MASK_BATCH = 10_000


class ImportedDataset(NamedTuple):
    """Each image by its key, as a file or a function that reads it; and how many were left out, by reason."""

    images: dict[str, Path | Callable[[], bytes]]
    skipped: dict[str, int]
    adjusted: dict[str, int]


def import_dataset(settings: Acquire, seed: int, out: Path, database: Database | None = None) -> ImportedDataset:
    """Write `{out}/annotations/`: box annotations, classes and groups as CSV files, objects' masks as parquet.

    `database` is FiftyOne's, for that source. Raises UserError naming the file and the row or key that is missing or
    invalid.
    """
    counts = ImportCounts()
    found = select_images(_read(settings, counts, database), settings, counts)
    ids = image_ids([image.path for image in found])
    images = sorted(found, key=lambda image: ids[image.path])  # the filter streams images in this order
    groups = groups_of(images, settings, counts)
    splits = draw_splits(images, [ids[image.path] for image in images], groups, settings.validation_frac, seed)
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        of_split = [(ids[i.path], i.boxes) for i, s in zip(images, splits, strict=True) if s == split]
        _write_boxes(out / "annotations" / openimages.BOX_FILES[split].name, settings.source, of_split)
        if any(box.object_mask for _, boxes in of_split for box in boxes):
            _write_masks(out / "annotations" / openimages.MASK_FILES[split].name, of_split)
        grouped = [(ids[i.path], g) for i, g, s in zip(images, groups, splits, strict=True) if s == split and g]
        if grouped:
            _write_groups(out / "annotations" / GROUP_FILES[split].name, grouped)
    _write_classes(out / "annotations" / openimages.CLASSES_FILE.name, images)
    files = {image_key(s, ids[i.path]): i.read or i.path for i, s in zip(images, splits, strict=True)}
    return ImportedDataset(files, _nonzero(counts.skipped), _nonzero(counts.adjusted))


def _nonzero(counts: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(counts.items()) if count}


def _read(settings: Acquire, counts: ImportCounts, database: Database | None) -> Iterator[ImportedImage]:
    if settings.source != "fiftyone":
        return READERS[settings.source](settings, counts)
    if database is None:
        raise UserError("acquire.source: fiftyone needs the address of FiftyOne's MongoDB")
    return read_fiftyone(settings, counts, database)


def _write_boxes(path: Path, source: str, images: Iterable[tuple[str, Sequence[ImportedBox]]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(openimages.BOX_COLUMNS)
        for image_id, box in ((image_id, box) for image_id, boxes in images for box in boxes):
            x0, y0, x1, y1 = (f"{share:.9f}" for share in box.xyxy)
            flags = (box.is_occluded, box.is_truncated, box.is_group_of, box.is_depiction)
            writer.writerow([image_id, source, box.label, 1, x0, x1, y0, y1, *(int(flag) for flag in flags), 0])


def _write_masks(path: Path, images: Iterable[tuple[str, Sequence[ImportedBox]]]) -> None:
    """Write the masks of the boxes that have one, with the box's number among its image's rows."""
    numbers = Counter[str]()
    rows: list[tuple[str, int, bytes]] = []
    with pq.ParquetWriter(path, _MASK_SCHEMA, compression="zstd") as writer:
        for image_id, boxes in images:
            for number, box in enumerate(boxes, numbers[image_id]):
                rows += [(image_id, number, box.object_mask)] if box.object_mask else []
            numbers[image_id] += len(boxes)
            if len(rows) >= _MASK_BATCH:
                writer.write_table(_mask_rows(rows))
                rows = []
        writer.write_table(_mask_rows(rows))


def _mask_rows(rows: Sequence[tuple[str, int, bytes]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(openimages.MASK_COLUMNS, row, strict=True)) for row in rows], _MASK_SCHEMA)


def _write_groups(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([GROUP_COLUMNS, *rows])


def _write_classes(path: Path, images: Iterable[ImportedImage]) -> None:
    labels = sorted({box.label for image in images for box in image.boxes})
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([openimages.CLASS_COLUMNS, *((label, label) for label in labels)])
