"""Small data sets with the faults that tools leave in them, run through acquire and filter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from pbe.acquisition.download import AcquireReport, acquire
from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.filtering.box_filter import filter_boxes
from tests.support import parameters

SIZE = (320, 240)
BOX = (20, 60, 140, 160)

Row = tuple[Any, ...]


class Imported(NamedTuple):
    """Boxes as (label, x0, y0, x1, y1) and splits, by image id; which boxes have masks; and acquire's report."""

    boxes: dict[str, list[Row]]
    splits: dict[str, str]
    masks: dict[str, list[bytes | None]]
    report: AcquireReport

    def all_boxes(self) -> list[Row]:
        return [box for image_id in sorted(self.boxes) for box in self.boxes[image_id]]

    def num_images(self, split: str) -> int:
        return sum(found == split for found in self.splits.values())


def picture(path: Path, size: tuple[int, int] = SIZE, **options: Any) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def imported(
    source: str, root: Path, database: Database | None = None, out: Path | None = None, **changes: Any
) -> Imported:
    """Return the result of acquire and a filter that rejects nothing; `out` is by default a folder beside the set."""
    settings = parameters.acquire(source=source, root=str(root), workers=1, **{"validation_frac": 0.3} | changes)
    out = out or root.parent / "out"
    report = acquire(settings, 0, out / "raw", database=database)
    everything = parameters.filtering(
        max_boxes_per_image=None, min_area_frac=0.0, max_area_frac=1.0, min_side_px=1, max_aspect=1000.0,
        drop_group_of=False, drop_truncated=False,
    )  # fmt: skip
    filter_boxes(out / "raw", out / "boxes", everything, 0)
    frame = pl.read_parquet(out / "boxes" / "boxes.parquet").sort("image_id", "box_id")
    boxes: dict[str, list[Row]] = {}
    masks: dict[str, list[bytes | None]] = {}
    for image_id, label, x0, y0, x1, y1, mask in frame.select(
        "image_id", "label", "x0", "y0", "x1", "y1", "object_mask"
    ).rows():
        boxes.setdefault(image_id, []).append((label, x0, y0, x1, y1))
        masks.setdefault(image_id, []).append(mask)
    return Imported(boxes, dict(frame.select("image_id", "split").unique().rows()), masks, report)


def coco(
    path: Path,
    names: Sequence[str],
    ids: Sequence[int] | None = None,
    bbox: Sequence[float] = (20, 60, 120, 100),
    segmentation: object = None,
    label: str = "Cat",
    encoding: str = "utf-8",
) -> Path:
    """Write a COCO file with one box for each image name."""
    ids = list(ids if ids is not None else range(len(names)))
    images = [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in zip(ids, names, strict=True)]
    extra = {} if segmentation is None else {"segmentation": segmentation}
    annotations = [{"id": n, "image_id": i, "category_id": 1, "bbox": list(bbox), **extra} for n, i in enumerate(ids)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": label}]}
    return write(path, json.dumps(content).encode(encoding))


def voc(path: Path, name: str, corners: Sequence[float] = (21, 61, 140, 160), size: str = "", head: str = "") -> Path:
    """Write a VOC file with one Cat."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return write(
        path,
        f"{head}<annotation><filename>{name}</filename>{size}"
        f"<object><name>Cat</name><bndbox>{box}</bndbox></object></annotation>",
    )


def csv(root: Path, rows: Sequence[str]) -> Path:
    return write(root / "boxes.csv", "\n".join(["image,label,x0,y0,x1,y1", *rows]) + "\n")


def yolo(root: Path, lines: Sequence[str], names: str = "[Cat]", more: str = "", num_val: int = 1) -> Path:
    """Write a YOLO set with one image for each content of a label file; the last `num_val` are for validation."""
    for n, line in enumerate(lines):
        split = "val" if n >= len(lines) - num_val else "train"
        picture(root / f"images/{split}/{n}.jpg")
        write(root / f"labels/{split}/{n}.txt", f"{line}\n")
    write(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{more}names: {names}\n")
    return root
