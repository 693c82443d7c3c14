"""The curated boxes that training and encoding draw their samples from: data/curated/boxes.parquet.

Only reading the file imports polars: training from the cache, and drawing samples of boxes, run without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pbe.dataset.image_shards import LOCATION, ImageRef
from pbe.errors import UserError
from pbe.types import Box

if TYPE_CHECKING:
    import polars as pl

BOXES_FILE = "boxes.parquet"
_COLUMNS = ("box_id", "image_id", "split", "x0", "y0", "x1", "y1", *LOCATION)


@dataclass(frozen=True)
class CuratedBox:
    """A box of a curated image, with the packed mask of its object where the data have one (see object_masks)."""

    box_id: str
    image_id: str
    split: str
    xyxy: Box
    image: ImageRef
    object_mask: bytes | None = None


def read_curated_boxes(curated: Path, split: str) -> list[CuratedBox]:
    """Return the curated boxes of a split, sorted by id; raises UserError as `read_curated_frame` does."""
    frame = read_curated_frame(curated, split)
    masks = frame["object_mask"].to_list() if "object_mask" in frame.columns else [None] * frame.height
    images = [ImageRef(*place) for place in frame.select(*LOCATION).iter_rows()]
    columns = frame.select(_COLUMNS[:7]).iter_rows()
    return [
        CuratedBox(box_id, image_id, split, (x0, y0, x1, y1), image, mask)
        for (box_id, image_id, split, x0, y0, x1, y1), image, mask in zip(columns, images, masks, strict=True)
    ]


def read_curated_frame(curated: Path, split: str) -> "pl.DataFrame":
    """Return all columns of a split's curated boxes, sorted by id.

    Raises UserError when the file is missing, damaged or lacks a column, and when the split has no boxes.
    """
    from pbe.dataset.table_files import read_parquet

    path = curated / BOXES_FILE
    frame = read_parquet(path, _COLUMNS, "curate").filter(split=split).sort("box_id")
    if frame.is_empty():
        raise UserError(f"{path}: no box of the split {split!r} is left; loosen filter or curate in params.yaml")
    return frame
