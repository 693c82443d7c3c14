"""Small data sets with the faults that tools leave in them, run through acquire and filter."""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pbe.acquisition.download import AcquireReport, acquire
from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.filtering.box_filter import filter_boxes
from tests.support import parameters

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
