"""The one look that curation takes at every image: decoded once, measured, shrunk and embedded.

Per image only a row of numbers stays in memory. Thumbnails and embeddings lie in files without a name, which the
system pages in and out as it likes and which are gone with the process, however that ends.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.curation.quality import MEASURES, THUMBNAIL_SIDE_PX, Quality, fault, measure
from pbe.curation.thumbnails import write_thumbnail
from pbe.dataset.image_shards import LOCATION, ImageShards, ImageRef
from pbe.dataset.images import decode_image
from pbe.errors import UserError
from pbe.settings import Curate

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Embed = Callable[[Image], Floats]
Locate = Callable[[str, str], Path]
Progress = Callable[[int, int], None]

UNDECODABLE, SIZE_MISMATCH = "undecodable", "size_mismatch"
_BATCH = 64
_BLOCK = 16 * _BATCH
_SCHEMA = {
    "image_id": pl.String,
    "split": pl.String,
    "fault": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    **dict.fromkeys(MEASURES, pl.Float32),
    "pixels_sha256": pl.String,
    **LOCATION,
}


@dataclass(frozen=True)
class Examination:
    """What is known of N images, in the order they were given.

    `table` has a row per image: image_id, split, fault ("" where there is none), sizes, the measures of `Quality`
    (null where undecodable), its place in the archive. `thumbnails` is (N, 32, 32, 3) uint8. `good` are the G rows
    without a fault, and `embeddings` is theirs, (G, D) float32.
    """

    table: pl.DataFrame
    thumbnails: Image
    good: NDArray[np.int64]
    embeddings: Floats


class Seen(NamedTuple):
    """One image after its only decoding; `small` is there only where nothing is wrong with it."""

    fault: str
    size: tuple[int, int] | None = None
    quality: Quality | None = None
    small: Image | None = None


@dataclass(frozen=True)
class Look:
    """How to look at one image, of which a small copy is left in the file `locate(split, image_id)`."""

    archive: ImageShards
    locate: Locate
    settings: Curate
    embed_px: int

    def __call__(self, row: tuple[Any, ...]) -> Seen:
        """Look at (image_id, split, its place, the size [width, height] that its boxes are for, None without any).

        Raises UserError where its shard does not hold it.
        """
        image_id, split, *place, expected = row
        content = self.archive.read_bytes(ImageRef(*place))
        small_copy = self.locate(split, image_id)
        try:
            pixels = decode_image(content, image_id)
        except UserError:
            small_copy.unlink(missing_ok=True)
            return Seen(UNDECODABLE)
        write_thumbnail(small_copy, pixels)
        height, width = pixels.shape[:2]
        quality = measure(pixels)
        agrees = expected is None or expected == [width, height]
        reason = fault(quality, self.settings) if agrees else SIZE_MISMATCH
        if reason:
            return Seen(reason, (width, height), quality)
        small = cv2.resize(pixels, (self.embed_px, self.embed_px), interpolation=cv2.INTER_AREA)
        return Seen("", (width, height), quality, np.asarray(small, np.uint8))


def examine(
    images: pl.DataFrame,
    boxes: pl.DataFrame,
    look: Look,
    embed: Embed,
    *,
    scratch: Path,
    num_workers: int = 1,
    progress: Progress,
) -> Examination:
    """Look at every row (image_id, split, its place) of `images`, in `num_workers` threads; results keep their order.

    An image that cannot be decoded, or whose `boxes` were made for another size, has a fault. `embed` takes
    (B, embed_px, embed_px, 3) uint8 and returns (B, D) float32. `scratch` is the folder whose disk takes the thumbnails
    and embeddings.
    """
    asked = images.join(_sizes_of_boxes(boxes), on=["split", "image_id"], how="left", maintain_order="left")
    thumbnails = _on_disk(scratch, (len(asked), THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3), np.uint8)
    embeddings: NDArray[Any] = np.zeros((0, 1), np.float32)
    tables, num_good = [pl.DataFrame(schema=_SCHEMA)], 0
    with ThreadPoolExecutor(num_workers) as threads:
        for start in range(0, len(asked), _BLOCK):
            rows = asked.slice(start, _BLOCK).rows()
            all_seen = list(threads.map(look, rows))
            tables.append(_table(rows, all_seen))
            for row, seen in enumerate(all_seen, start):
                if seen.quality is not None:
                    thumbnails[row] = seen.quality.thumbnail
            for batch in _batches([seen.small for seen in all_seen if seen.small is not None]):
                vectors = embed(np.stack(batch))
                if not num_good:
                    embeddings = _on_disk(scratch, (len(asked), vectors.shape[1]), np.float32)
                embeddings[num_good : num_good + len(vectors)] = vectors
                num_good += len(vectors)
            progress(min(start + _BLOCK, len(asked)), len(asked))
    table = pl.concat(tables)
    good = np.flatnonzero((table["fault"] == "").to_numpy())
    return Examination(table, thumbnails, good, embeddings[:num_good])


def _sizes_of_boxes(boxes: pl.DataFrame) -> pl.DataFrame:
    """split, image_id and the size [width, height] that the image's boxes were made for, [] where they disagree."""
    size = pl.concat_list("width", "height").cast(pl.List(pl.Int64))
    sizes = boxes.select("split", "image_id", size.alias("size")).unique()
    first, number = pl.col("size").first(), pl.len()
    agreed = pl.when(number == 1).then(first).otherwise(pl.lit([], pl.List(pl.Int64)))
    return sizes.group_by("split", "image_id").agg(agreed.alias("size"))


def _table(rows: list[tuple[Any, ...]], all_seen: list[Seen]) -> pl.DataFrame:
    values = [
        (
            image_id,
            split,
            seen.fault,
            *(seen.size or (None, None)),
            *(getattr(seen.quality, name, None) for name in MEASURES),
            seen.quality.pixels_sha256 if seen.quality else "",
            *place,
        )
        for (image_id, split, *place, _), seen in zip(rows, all_seen, strict=True)
    ]
    return pl.DataFrame(values, schema=_SCHEMA, orient="row")


def _batches(images: list[Image]) -> Iterator[list[Image]]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]


def _on_disk(folder: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros in a file of no name in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, mode="w+", shape=shape)
