"""The examination of every image: it is decoded once, measured, resized and embedded.

Images are examined in blocks, in threads of this process (`in_threads`) or on a Ray cluster (`ray_examination`). A
block and its batches hold the same images in both, so that the results have the same bits.

Only a row of numbers for each image stays in memory. Thumbnails and embeddings are in unnamed files, which the system
pages in and out and deletes when the process ends, even when it is killed.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.curation.quality import MEASURES, THUMBNAIL_SIDE_PX, Quality, fault, measure
from pbe.curation.thumbnails import Locate, write_thumbnail
from pbe.dataset.image_shards import LOCATION, ImageRef, ImageShards
from pbe.dataset.images import decode_image
from pbe.errors import UserError
from pbe.settings import Curate
from pbe.types import Image, Progress

Floats = NDArray[np.float32]
Embed = Callable[[Image], Floats]  # (B, embed_px, embed_px, 3) uint8 -> (B, D)

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
    """The results for N images, in the order in which they were given.

    `images` has one row for each: image_id, split, fault or "", size, the measures of `Quality` (null when it cannot be
    decoded), its location in a shard and its group (null when none is known). `thumbnails` is (N, 32, 32, 3) uint8.
    `good` are the G rows without a fault, and `embeddings` their (G, D) float32 embeddings.
    """

    images: pl.DataFrame
    thumbnails: Image
    good: NDArray[np.int64]
    embeddings: Floats


class ExaminedImage(NamedTuple):
    """The result for one image; `to_embed` is its resized copy, None when it has a fault."""

    fault: str
    size: tuple[int, int] | None = None
    quality: Quality | None = None
    to_embed: Image | None = None


@dataclass(frozen=True)
class Examiner:
    """Examines one image at a time, and writes its thumbnail to the file `locate(split, image_id)`."""

    shards: ImageShards
    locate: Locate
    settings: Curate
    embed_px: int

    def __call__(self, row: tuple[Any, ...]) -> ExaminedImage:
        """Examine a row: image_id, split, location, and the size [width, height] of its boxes, None without boxes.

        Raises UserError when the shard does not hold the image.
        """
        image_id, split, *location, expected = row
        content = self.shards.read_bytes(ImageRef(*location))
        thumbnail = self.locate(split, image_id)
        try:
            pixels = decode_image(content, image_id)
        except UserError:
            thumbnail.unlink(missing_ok=True)
            return ExaminedImage(UNDECODABLE)
        write_thumbnail(thumbnail, pixels)
        height, width = pixels.shape[:2]
        quality = measure(pixels)
        agrees = expected is None or expected == [width, height]
        reason = fault(quality, self.settings) if agrees else SIZE_MISMATCH
        if reason:
            return ExaminedImage(reason, (width, height), quality)
        to_embed = cv2.resize(pixels, (self.embed_px, self.embed_px), interpolation=cv2.INTER_AREA)
        return ExaminedImage("", (width, height), quality, np.asarray(to_embed, np.uint8))


@dataclass(frozen=True)
class ExaminedBlock:
    """The results for N consecutive images.

    `images` has a row of the schema of `Examination.images` for each, without the group. `thumbnails` is
    (N, 32, 32, 3) uint8, zeros for an image that cannot be decoded; `embeddings` are the (G, D) of the good ones.
    """

    images: pl.DataFrame
    thumbnails: Image
    embeddings: Floats


ExamineBlocks = Callable[[Examiner, Sequence[pl.DataFrame]], Iterator[ExaminedBlock]]  # in order


def in_threads(embed: Embed, num_workers: int) -> ExamineBlocks:
    """Return a function that examines blocks in `num_workers` threads of this process."""

    def examine_blocks(examiner: Examiner, blocks: Sequence[pl.DataFrame]) -> Iterator[ExaminedBlock]:
        with ThreadPoolExecutor(num_workers) as threads:
            for block in blocks:
                rows = block.rows()
                yield block_of(rows, list(threads.map(examiner, rows)), embed)

    return examine_blocks


def block_of(rows: Sequence[tuple[Any, ...]], examined: Sequence[ExaminedImage], embed: Embed) -> ExaminedBlock:
    """Return the results for a block; the images without a fault are embedded in batches of 64."""
    thumbnails = np.zeros((len(rows), THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3), np.uint8)
    for row, image in enumerate(examined):
        if image.quality is not None:
            thumbnails[row] = image.quality.thumbnail
    batches = _batches([image.to_embed for image in examined if image.to_embed is not None])
    vectors = [embed(np.stack(batch)) for batch in batches]
    embeddings = np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)
    return ExaminedBlock(_to_frame(rows, examined), thumbnails, embeddings)


def examine(
    images: pl.DataFrame,
    boxes: pl.DataFrame,
    examiner: Examiner,
    examine_blocks: ExamineBlocks,
    *,
    scratch: Path,
    progress: Progress,
) -> Examination:
    """Examine every row of `images` (image_id, split, group, location), and keep their order.

    An image has a fault when it cannot be decoded, when its `boxes` are for another size, or by its measures. The
    unnamed files of thumbnails and embeddings are created in the folder `scratch`.
    """
    sizes = _sizes_of_boxes(boxes)
    rows = images.drop("group").join(sizes, on=["split", "image_id"], how="left", maintain_order="left")
    thumbnails = _on_disk(scratch, (len(rows), THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX, 3), np.uint8)
    embeddings: NDArray[Any] = np.zeros((0, 1), np.float32)
    frames, num_done, num_good = [pl.DataFrame(schema=_SCHEMA)], 0, 0
    for block in examine_blocks(examiner, list(rows.iter_slices(_BLOCK))):
        frames.append(block.images)
        thumbnails[num_done : num_done + len(block.images)] = block.thumbnails
        if len(block.embeddings):
            if not num_good:
                embeddings = _on_disk(scratch, (len(rows), block.embeddings.shape[1]), np.float32)
            embeddings[num_good : num_good + len(block.embeddings)] = block.embeddings
        num_good += len(block.embeddings)
        num_done += len(block.images)
        progress(num_done, len(rows))
    results = pl.concat(frames).with_columns(images["group"])
    good = np.flatnonzero((results["fault"] == "").to_numpy())
    return Examination(results, thumbnails, good, embeddings[:num_good])


def _sizes_of_boxes(boxes: pl.DataFrame) -> pl.DataFrame:
    """Return split, image_id and the size [width, height] that the image's boxes were made for, [] if they differ."""
    size = pl.concat_list("width", "height").cast(pl.List(pl.Int64))
    sizes = boxes.select("split", "image_id", size.alias("size")).unique()
    first, number = pl.col("size").first(), pl.len()
    agreed = pl.when(number == 1).then(first).otherwise(pl.lit([], pl.List(pl.Int64)))
    return sizes.group_by("split", "image_id").agg(agreed.alias("size"))


def _to_frame(rows: Iterable[tuple[Any, ...]], examined: Iterable[ExaminedImage]) -> pl.DataFrame:
    values = [
        (
            image_id,
            split,
            image.fault,
            *(image.size or (None, None)),
            *(getattr(image.quality, name, None) for name in MEASURES),
            image.quality.pixels_sha256 if image.quality else "",
            *location,
        )
        for (image_id, split, *location, _), image in zip(rows, examined, strict=True)
    ]
    return pl.DataFrame(values, schema=_SCHEMA, orient="row")


def _batches(images: list[Image]) -> Iterator[list[Image]]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]


def _on_disk(folder: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an array of zeros in an unnamed file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if 0 in shape:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, mode="w+", shape=shape)
