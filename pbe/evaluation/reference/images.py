"""The real images of FID and QS: COCO test2017 in the paper, curated training images by default.

They are never the bench's own sources, from which the unchanged sources would have a distance of zero.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards
from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.evaluation.benches.bench_folder import IMAGE_SUFFIXES
from pbe.evaluation.encoders.resizing import centre_square
from pbe.types import Image

Read = Callable[[], Image]

_LISTED = "images.parquet"  # of a folder that curation wrote


def reference_images(folder: Path, raw: Path, image_px: int, limit: int) -> Iterator[Image]:
    """Return up to `limit` images of `folder`, each decoded when it is taken: its centre square, of side image_px.

    `folder` (`evaluate.real`) holds image files, or is what curation wrote: then the images are the train images that
    it kept, which lie in `raw`. Their order is that of their names. `image_px` is the side of the results that they are
    compared with; the authors' tools use 512, COCOEE's. Raises UserError when there are fewer than two, and later
    naming a file that cannot be decoded.
    """
    images = _curated_train(raw, folder, limit) if (folder / _LISTED).is_file() else _files_in(folder)
    if len(images) < 2:
        raise UserError(f"{folder} (evaluate.real): FID needs at least two real images, but there are {len(images)}")
    return (centre_square(read(), image_px) for read in images[:limit])


def _files_in(folder: Path) -> Sequence[Read]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; see evaluate.real")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [partial(read_image, path) for path in paths]


def _curated_train(raw: Path, curated: Path, limit: int) -> Sequence[Read]:
    shards = ImageShards(raw / "images")
    kept = pl.col("verdict") == "keep"
    images = pl.read_parquet(curated / _LISTED).filter(kept & (pl.col("split") == "train"))
    locations = images.sort("image_id").head(limit).select(*LOCATION).iter_rows()
    return [partial(shards.read_image, ImageRef(*location)) for location in locations]
