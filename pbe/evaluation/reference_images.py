"""The real images that results are compared with: COCO test2017 in the paper, curated training images here.

They are never the bench's own sources, on which the untouched source would score a distance of nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from pbe.dataset.image_shards import LOCATION, ImageShards, ImageRef
from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.evaluation.bench import Image
from pbe.method.windows import cut_window

Read = Callable[[], Image]

_SUFFIXES = {".jpg", ".jpeg", ".png"}


def real_images(raw: Path, curated: Path, folder: str | None, image_px: int, limit: int) -> Iterator[Image]:
    """Up to `limit` real images, one at a time: the centre square of each, resized to (image_px, image_px, 3).

    They come from `folder` (`evaluate.real`), or from the train images that curation kept, in order of their names.
    Raises UserError when there are fewer than two, or naming the file that cannot be decoded.
    """
    images = _files_of(Path(folder)) if folder else _curated_train(raw, curated, limit)
    if len(images) < 2:
        raise UserError(f"{folder or curated / 'images.parquet'}: FID and QS take two real images at least")
    return (centre_square(read(), image_px) for read in images[:limit])


def centre_square(image: Image, size_px: int) -> Image:
    """The largest square around the centre, resized to (size_px, size_px, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    return cut_window(image, ((width - side) // 2, (height - side) // 2, side), size_px)


def _files_of(folder: Path) -> Sequence[Read]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; see evaluate.real")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return [partial(read_image, path) for path in paths]


def _curated_train(raw: Path, curated: Path, limit: int) -> Sequence[Read]:
    shards = ImageShards(raw / "images")
    kept = pl.col("verdict") == "keep"
    images = pl.read_parquet(curated / "images.parquet").filter(kept & (pl.col("split") == "train"))
    places = images.sort("image_id").head(limit).select(*LOCATION).iter_rows()
    return [partial(shards.read_image, ImageRef(*place)) for place in places]
