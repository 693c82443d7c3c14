"""OpenImages: the addresses and formats of its files, and the choice of the images to download.

Images are `{split}/{image_id}.jpg` in the public S3 bucket `open-images-dataset`. The box annotations are CSV files
under https://storage.googleapis.com/openimages, with `XMin, XMax, YMin, YMax` as fractions of the image's sides.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.dataset.table_files import collect, file_errors, require_columns
from pbe.errors import UserError

IMAGES_BUCKET = "open-images-dataset"
ANNOTATIONS_BUCKET = "openimages"
SPLITS = ("train", "validation")

COORDINATES = ("XMin", "XMax", "YMin", "YMax")
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction")
BOX_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence", *COORDINATES, *FLAGS, "IsInside")
CLICK_COLUMNS = tuple(f"XClick{n}{axis}" for axis in "XY" for n in (1, 2, 3, 4))  # only in the train file
REQUIRED_COLUMNS = ("ImageID", "LabelName", *COORDINATES, *FLAGS)
CLASS_COLUMNS = ("LabelName", "DisplayName")

_BATCH_ROWS = 250_000
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file: its `name` in data/raw and its `key` in the public bucket."""

    name: str
    key: str

    @property
    def aliases(self) -> tuple[str, ...]:
        """Return the names under which a user's folder may hold the file."""
        return tuple(dict.fromkeys((self.name, self.key.rsplit("/", 1)[-1])))


BOX_FILES = {
    "train": AnnotationFile("train-annotations-bbox.csv", "v6/oidv6-train-annotations-bbox.csv"),
    "validation": AnnotationFile("validation-annotations-bbox.csv", "v5/validation-annotations-bbox.csv"),
}
CLASSES_FILE = AnnotationFile("class-descriptions-boxable.csv", "v7/oidv7-class-descriptions-boxable.csv")
HIERARCHY_FILE = AnnotationFile("bbox_labels_600_hierarchy.json", "2018_04/bbox_labels_600_hierarchy.json")
IMAGE_FILES = {
    "train": AnnotationFile("train-images.csv", "2018_04/train/train-images-boxable-with-rotation.csv"),
    "validation": AnnotationFile("validation-images.csv", "2018_04/validation/validation-images-with-rotation.csv"),
}
MASK_FILES = {split: AnnotationFile(name, name) for split in SPLITS if (name := f"{split}-object-masks.parquet")}
MASK_COLUMNS = ("ImageID", "number", "object_mask")  # number: the box's running number inside its image, from 0
IMAGE_COLUMNS = ("ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author",
                 "Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation")  # fmt: skip
CREDITS = {
    "license": "License",
    "author": "Author",
    "author_url": "AuthorProfileURL",
    "title": "Title",
    "source_url": "OriginalLandingURL",
}


def image_key(split: str, image_id: str) -> str:
    """Return an image's key in the public bucket."""
    return f"{split}/{image_id}.jpg"


def scan_boxes(path: Path) -> pl.LazyFrame:
    """Scan a box annotation file: REQUIRED_COLUMNS, in file order; coordinates Float64, flags Boolean.

    A coordinate that is not a number is null; a flag is true only where the file says 1 (-1 means unknown).
    Raises UserError naming the file when it is missing, empty or lacks a column.
    """
    kinds = dict.fromkeys(COORDINATES, pl.Float64()) | dict.fromkeys(FLAGS, pl.Int8())
    with file_errors(path):
        found = pl.scan_csv(path, infer_schema=False).collect_schema().names()
    require_columns(path, found, REQUIRED_COLUMNS)
    schema = {column: kinds.get(column, pl.String()) for column in found}
    raw = pl.scan_csv(path, schema=schema, ignore_errors=True)
    return raw.select("ImageID", "LabelName", *COORDINATES, (pl.col(FLAGS) == 1).fill_null(False))


class UnsortedError(Exception):
    """The rows of the file `path` are not sorted by image."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def stream_images(frame: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of a scan of `path` in order, in batches that hold all rows of each of their images.

    OpenImages' files are sorted by ImageID and stream in bounded memory. Raises UnsortedError, possibly after some
    batches, when another file is not: sort the frame first, which takes memory for all of it. Raises UserError naming
    the file when its rows cannot be read.
    """
    with file_errors(path):
        batches = iter(frame.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, engine="streaming"))
    held: pl.DataFrame | None = None
    while (batch := _next_batch(batches, path)) is not None:
        rows = batch if held is None else pl.concat([held, batch])
        images = rows["ImageID"]
        if not images.is_sorted():
            raise UnsortedError(path)
        complete = images.search_sorted(images[-1]) if rows.height else 0
        held = rows[complete:]
        if complete:
            yield rows[:complete]
    if held is not None and held.height:
        yield held


def _next_batch(batches: Iterator[pl.DataFrame], path: Path) -> pl.DataFrame | None:
    with file_errors(path):
        return next(batches, None)


def number_boxes(boxes: pl.DataFrame) -> pl.DataFrame:
    """Add `number`, a row's place among the rows of its image, from 0; the rows are sorted by image."""
    images = boxes["ImageID"]
    first = np.flatnonzero((images != images.shift()).fill_null(True).to_numpy())
    lengths = np.diff(first, append=len(images))
    numbers = np.arange(len(images), dtype=np.int64) - np.repeat(first, lengths)
    return boxes.with_columns(pl.Series("number", numbers))


def read_classes(path: Path) -> pl.DataFrame:
    """Read the class descriptions, with or without a header line: LabelName, DisplayName.

    Raises UserError naming the file when it is missing or empty, or when a row has no second field.
    """
    with file_errors(path):
        classes = pl.read_csv(path, has_header=False, infer_schema=False)
    if classes.width < 2 or classes.to_series(1).null_count():
        raise UserError(f"{path}: class descriptions are rows of LabelName,DisplayName; a row has no second field")
    classes = classes[:, :2].rename(dict(zip(classes.columns, CLASS_COLUMNS, strict=False)))
    classes = classes.filter(pl.col("LabelName") != "LabelName")
    return classes.unique("LabelName", keep="first", maintain_order=True)


def read_hierarchy(path: Path) -> dict[str, frozenset[str]]:
    """Return LabelName -> the LabelNames of its subcategories at any depth; {} when there is no such file.

    Raises UserError naming the file when it is not a tree of LabelName and Subcategory.
    """
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file: {error}") from None
    kinds: dict[str, set[str]] = {}
    _collect_kinds(tree, (), kinds, path)
    return {label: frozenset(below) for label, below in kinds.items()}


def _collect_kinds(node: Any, above: tuple[str, ...], kinds: dict[str, set[str]], path: Path) -> None:
    if not isinstance(node, dict) or not isinstance(node.get("LabelName"), str):
        raise UserError(f"{path}: not a class hierarchy: every node needs a LabelName")
    below = node.get("Subcategory", [])
    if not isinstance(below, list):
        raise UserError(f"{path}: not a class hierarchy: the Subcategory of {node['LabelName']} is not a list")
    for label in above:
        kinds.setdefault(label, set()).add(node["LabelName"])
    for child in below:
        _collect_kinds(child, (*above, node["LabelName"]), kinds, path)


def find_labels(
    classes: pl.DataFrame, names: Sequence[str], key: str, hierarchy: Mapping[str, frozenset[str]] | None = None
) -> list[str]:
    """Return the LabelNames of the classes with the display `names`, ignoring case, and of their subcategories.

    Raises UserError naming the settings `key`, the unknown class and the closest known ones.
    """
    known: dict[str, list[str]] = {}
    for label, display in classes.iter_rows():
        known.setdefault(display.casefold(), []).append(label)
    labels: list[str] = []
    for name in names:
        if name.casefold() not in known:
            raise UserError(f"{key}: no class is called {name!r}; {_suggest(name, classes['DisplayName'])}")
        labels += known[name.casefold()]
    below = {kind for label in labels for kind in (hierarchy or {}).get(label, ())}
    return [*labels, *sorted(below.difference(labels))]


def _suggest(name: str, displays: Iterable[str]) -> str:
    by_folded = {display.casefold(): display for display in displays}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.5)
    if close:
        return f"close to it: {', '.join(by_folded[c] for c in close)}"
    return f"there are {len(by_folded)}, for example {', '.join(sorted(by_folded.values())[:3])}"


def scan_credits(path: Path) -> pl.LazyFrame | None:
    """Scan a list of images: image_id and CREDITS, null where the list lacks the column; None when there is no list.

    Raises UserError naming the file when it is not a CSV file or has no column ImageID.
    """
    if not path.is_file():
        return None
    with file_errors(path):
        listed = pl.scan_csv(path, infer_schema=False)
        found = listed.collect_schema().names()
    require_columns(path, found, ["ImageID"])
    columns = (pl.col(c).alias(n) if c in found else pl.lit(None, pl.String).alias(n) for n, c in CREDITS.items())
    return listed.select(pl.col("ImageID").alias("image_id"), *columns)


def read_credits(path: Path, image_ids: pl.DataFrame) -> pl.DataFrame:
    """Return image_id and CREDITS for the images of a column image_id, null where the list does not name one."""
    credits = scan_credits(path)
    if credits is None:
        return image_ids.with_columns(pl.lit(None, pl.String).alias(name) for name in CREDITS)
    wanted = collect(credits.join(image_ids.lazy(), on="image_id", how="semi"), path)
    once = wanted.sort(pl.all()).unique("image_id", keep="first", maintain_order=True)
    return image_ids.join(once, on="image_id", how="left", maintain_order="left")


def select_images(path: Path, labels: Sequence[str], limit: int | None, seed: int) -> pl.Series:
    """Return the sorted ids of the images in `path` with a box of one of `labels` (of any class when it is empty).

    `limit` keeps that many images, the first in an order that depends on `seed` alone: a larger limit keeps the
    images of a smaller one.
    """
    boxes = scan_boxes(path)
    if labels:
        boxes = boxes.filter(pl.col("LabelName").is_in(list(labels)))
    images = collect(boxes.select(pl.col("ImageID").drop_nulls().unique()), path)
    if limit is not None and limit < images.height:
        ranks = pl.Series("rank", draw_ranks(images["ImageID"], seed))
        images = images.with_columns(ranks).sort("rank", "ImageID").head(limit)
    return images["ImageID"].sort()


def draw_ranks(names: pl.Series | Sequence[str], seed: int) -> NDArray[np.uint64]:
    """Return a number in 0..2^64 for each name, from the name and `seed` alone: sorting by it is a seeded shuffle.

    SplitMix64 (Steele et al., 2014) over the bytes of all names together. It is written with numpy because
    `pl.Series.hash` may change with the version of polars, and hashlib takes a Python call for each name.
    """
    encoded = np.array(pl.Series(names, dtype=pl.String).cast(pl.Binary).to_list(), dtype=np.bytes_)
    if not encoded.size:
        return np.zeros(0, np.uint64)
    columns = encoded.view(np.uint8).reshape(len(encoded), -1).T.astype(np.uint64)
    state = np.full(len(encoded), mix(np.array([seed], np.uint64))[0])
    for column in columns:
        state = np.where(column > 0, mix(state ^ column), state)  # a shorter name ends in zeros
    return state


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return one step of SplitMix64: every bit of the result depends on every bit of the state."""
    mixed = state + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)
