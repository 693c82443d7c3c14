"""The reference images of FID and QS: COCO test2017 in the paper, curated training images by default.

They are never the bench's own sources, from which the unchanged sources would have a distance of zero.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards
from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.method.windows import cut_window
from pbe.types import Image

Read = Callable[[], Image]

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def reference_images(raw: Path, curated: Path, folder: str | None, image_px: int, limit: int) -> Iterator[Image]:
    """Return up to `limit` images, each decoded when it is taken: its centre square, (image_px, image_px, 3).

    They come from `folder` (`evaluate.real`), or from the train images that curation kept, in the order of their names.
    Raises UserError when there are fewer than two, and later naming a file that cannot be decoded.
    """
    images = _files_in(Path(folder)) if folder else _curated_train(raw, curated, limit)
    if len(images) < 2:
        where = f"{folder} (evaluate.real)" if folder else f"{curated / 'images.parquet'}: train images"
        raise UserError(f"{where}: FID and QS need at least two reference images, but there are {len(images)}")
    return (centre_square(read(), image_px) for read in images[:limit])


def centre_square(image: Image, size_px: int) -> Image:
    """Return the largest square around the centre, resized to (size_px, size_px, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    return cut_window(image, ((width - side) // 2, (height - side) // 2, side), size_px)


def _files_in(folder: Path) -> Sequence[Read]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; see evaluate.real")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return [partial(read_image, path) for path in paths]


def _curated_train(raw: Path, curated: Path, limit: int) -> Sequence[Read]:
    shards = ImageShards(raw / "images")
    kept = pl.col("verdict") == "keep"
    images = pl.read_parquet(curated / "images.parquet").filter(kept & (pl.col("split") == "train"))
    locations = images.sort("image_id").head(limit).select(*LOCATION).iter_rows()
    return [partial(shards.read_image, ImageRef(*location)) for location in locations]
