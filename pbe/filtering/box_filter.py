"""Which boxes can teach: the paper's area rule (section 4.1), OpenImages' flags, and a cap per image.

Every row of the annotation files is either kept or rejected once, under the first rule that hits, in REASONS' order:
first what the row itself tells, then what its image tells, then the caps. The files stream through once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pbe.dataset import openimages
from pbe.dataset.image_shards import LOCATION
from pbe.dataset.openimages import COORDINATES, SPLITS, UnsortedError
from pbe.errors import UserError
from pbe.runtime.files import atomic_file
from pbe.settings import Filter

REASONS = (
    "invalid_coordinates",
    "class",
    "area_too_small",
    "area_too_large",
    "group_of",
    "depiction",
    "occluded",
    "truncated",
    "image_not_acquired",
    "side_too_small",
    "aspect",
    "over_image_cap",
    "over_class_cap",
)
COLUMNS = {
    "box_id": pl.String,
    "image_id": pl.String,
    "split": pl.String,
    "label": pl.String,
    **dict.fromkeys(("x0", "y0", "x1", "y1", "width", "height"), pl.Int32),
    "area_frac": pl.Float32,
    **dict.fromkeys(("is_occluded", "is_truncated", "is_group_of", "is_depiction"), pl.Boolean),
    "object_mask": pl.Binary,
    **LOCATION,  # of its image
}
_OF_IMAGE = ("width", "height", *LOCATION)
_REASON = pl.Enum(REASONS)


@dataclass(frozen=True)
class FilterReport:
    """`rows` in the annotation files; `kept` boxes and their images by split; `rejects` by reason, all REASONS."""

    rows: int
    kept: dict[str, int]
    images: dict[str, int]
    rejects: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        return {"rows": self.rows, "kept": self.kept, "images": self.images, "rejects": self.rejects}


def filter_boxes(raw: Path, out: Path, settings: Filter, seed: int) -> FilterReport:
    """Judge every box of `raw` (what `acquire` left) and write those kept to `{out}/boxes.parquet`.

    Train's boxes come first, each split's in the order of image and row; `seed` draws which stay under the caps. Memory
    is bounded where the annotation files are in the order of their images, as OpenImages' own are, and no class cap is
    set. Raises UserError naming the file and what is wrong with it, an unknown class, or that no box of a split is
    left.
    """
    manifest = raw / "manifest.parquet"
    if not manifest.exists():
        raise UserError(f"{manifest}: no such file; run the acquire stage first")
    job = _open(raw, settings, seed)
    unsorted: set[Path] = set()
    while True:
        try:
            return _write(job, manifest, out / "boxes.parquet", unsorted)
        except UnsortedError as error:
            unsorted.add(error.path)


@dataclass(frozen=True)
class _Job:
    """What is decided before the first row is read."""

    annotations: Path
    classes: pl.DataFrame
    masks: Mapping[str, pl.LazyFrame]  # by split, where there are any
    labels: Sequence[str]
    excluded: Sequence[str]
    settings: Filter
    seed: int


def _open(raw: Path, settings: Filter, seed: int) -> _Job:
    annotations = raw / "annotations"
    classes = openimages.read_classes(annotations / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(annotations / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "filter.classes", hierarchy)
    excluded = openimages.find_labels(classes, settings.exclude_classes, "filter.exclude_classes", hierarchy)
    files = {split: annotations / file.name for split, file in openimages.MASK_FILES.items()}
    masks = {split: scan_masks(file) for split, file in files.items() if file.is_file()}
    return _Job(annotations, classes, masks, labels, excluded, settings, seed)


def scan_masks(path: Path) -> pl.LazyFrame:
    """Scan a file of objects' masks: MASK_COLUMNS; raises UserError naming the file when it is none."""
    with openimages.told_as_mistake(path, "parquet"):
        table = pl.scan_parquet(path)
        found = table.collect_schema().names()
    missing = [column for column in openimages.MASK_COLUMNS if column not in found]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; columns found: {', '.join(found)}")
    return table.select("ImageID", pl.col("number").cast(pl.Int64), pl.col("object_mask").cast(pl.Binary))


def _write(job: _Job, manifest: Path, target: Path, unsorted: AbstractSet[Path]) -> FilterReport:
    kept, images, rejects = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0), Counter[str]()
    with atomic_file(target) as part:
        with pq.ParquetWriter(part, pl.DataFrame(schema=COLUMNS).to_arrow().schema, compression="zstd") as writer:
            for split in SPLITS:
                path = job.annotations / openimages.BOX_FILES[split].name
                acquired = pl.read_parquet(manifest, columns=["image_id", "split", "outcome", *_OF_IMAGE])
                acquired = acquired.filter(split=split, outcome="ok").sort("image_id")
                for batch in _kept_boxes(job, path, acquired, path in unsorted, rejects):
                    named = _name(_add_masks(batch, job.masks.get(split)), job.classes, split)
                    writer.write_table(named.to_arrow())
                    kept[split] += named.height
                    images[split] += named["image_id"].n_unique()
        report = FilterReport(
            sum(kept.values()) + rejects.total(), kept, images, {reason: rejects[reason] for reason in REASONS}
        )
        empty = [split for split in SPLITS if not kept[split]]
        if empty:
            reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejects.items() if count)
            raise UserError(
                f"{job.annotations.parent}: no {empty[0]} box passes the filter; "
                f"rejected of {report.rows}: {reasons or 'none'}"
            )
    return report


def _kept_boxes(
    job: _Job, path: Path, acquired: pl.DataFrame, sort: bool, rejects: Counter[str]
) -> Iterator[pl.DataFrame]:
    """The boxes of one annotation file that pass all rules and caps, in order; counts the others in `rejects`."""
    judged = judge_rows(openimages.scan_boxes(path), job.settings, job.labels, job.excluded)
    if sort:
        judged = judged.sort("ImageID", maintain_order=True)
    for_class_cap = []
    for batch in openimages.stream_images(judged, path):
        numbered = openimages.number_boxes(batch)
        _count(numbered, rejects)
        passed = numbered.filter(pl.col("reason").is_null())
        measured = judge_sizes(passed, acquired, job.settings)
        _count(measured, rejects)
        passed = measured.filter(pl.col("reason").is_null())
        capped = cap_boxes(passed, job.settings.max_boxes_per_image, job.seed)
        rejects["over_image_cap"] += passed.height - capped.height
        if job.settings.max_boxes_per_class is None:
            yield capped
        else:
            for_class_cap.append(capped)
    if for_class_cap:
        passed = pl.concat(for_class_cap)
        capped = cap_boxes(passed, job.settings.max_boxes_per_class, job.seed, "LabelName")
        rejects["over_class_cap"] += passed.height - capped.height
        yield capped


def _count(judged: pl.DataFrame, rejects: Counter[str]) -> None:
    for reason, count in judged["reason"].drop_nulls().value_counts().iter_rows():
        rejects[reason] += count


def judge_rows(
    boxes: pl.LazyFrame, settings: Filter, labels: Sequence[str] = (), excluded: Sequence[str] = ()
) -> pl.LazyFrame:
    """Give every box (a row of `scan_boxes`) the `reason` it is rejected for by what the row tells, null if it passes.

    `labels`, if any, are the only classes wanted, `excluded` those that are not; a row without a class is none of
    them. A row without ImageID gets "".
    """
    label = pl.col("LabelName")
    shares = [pl.col(name) for name in COORDINATES]
    in_range = pl.all_horizontal(*(share.is_finite() & share.is_between(0, 1) for share in shares))
    ordered = (pl.col("XMin") < pl.col("XMax")) & (pl.col("YMin") < pl.col("YMax"))
    area = (pl.col("XMax") - pl.col("XMin")) * (pl.col("YMax") - pl.col("YMin"))
    unwanted = [label.is_null()]
    unwanted += [~label.is_in(list(labels)).fill_null(False)] if labels else []
    unwanted += [label.is_in(list(excluded)).fill_null(False)] if excluded else []
    flags = {
        "group_of": ("IsGroupOf", settings.drop_group_of),
        "depiction": ("IsDepiction", settings.drop_depiction),
        "occluded": ("IsOccluded", settings.drop_occluded),
        "truncated": ("IsTruncated", settings.drop_truncated),
    }
    rules = {
        "invalid_coordinates": ~(in_range & ordered).fill_null(False),
        "class": pl.any_horizontal(*unwanted),
        "area_too_small": area < settings.min_area_frac,
        "area_too_large": area > settings.max_area_frac,
        **{reason: pl.col(column) for reason, (column, dropped) in flags.items() if dropped},
    }
    return boxes.with_columns(pl.col("ImageID").fill_null(""), reason=_first(rules))


def judge_sizes(boxes: pl.DataFrame, images: pl.DataFrame, settings: Filter) -> pl.DataFrame:
    """Give boxes their pixels and the `reason` they are rejected for by what their image tells, null if they pass.

    `boxes` and `images` (those acquired: image_id, width, height in pixels, location) are in the order of the image.
    Adds width, height, location, x0, y0, x1, y1 and area_frac.
    """
    if boxes.height:
        first, last = boxes["ImageID"][0], boxes["ImageID"][-1]
        ids = images["image_id"]
        images = images[ids.search_sorted(first, side="left") : ids.search_sorted(last, side="right")]
    sized = boxes.join(
        images.select("image_id", *_OF_IMAGE),
        left_on="ImageID", right_on="image_id", how="left", maintain_order="left",
    )  # fmt: skip
    in_pixels = sized.with_columns(
        _pixels("XMin", "width").alias("x0"),
        _pixels("YMin", "height").alias("y0"),
        _pixels("XMax", "width").alias("x1"),
        _pixels("YMax", "height").alias("y1"),
    )
    width, height = pl.col("x1") - pl.col("x0"), pl.col("y1") - pl.col("y0")
    short, long = pl.min_horizontal(width, height), pl.max_horizontal(width, height)
    rules = {
        "image_not_acquired": pl.col("width").is_null(),
        "side_too_small": short < settings.min_side_px,
        "aspect": long > settings.max_aspect * short,
    }
    area = width * height / (pl.col("width") * pl.col("height"))
    return in_pixels.with_columns(area_frac=area, reason=_first(rules))


def _first(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    """The name of the first rule that holds, as a member of REASONS."""
    return pl.coalesce(*(pl.when(rule).then(pl.lit(reason, _REASON)) for reason, rule in rules.items()))


def cap_boxes(boxes: pl.DataFrame, cap: int | None, seed: int, by: str = "ImageID") -> pl.DataFrame:
    """Keep at most `cap` boxes of each image (or other column), in their order; `seed` and the box alone draw which.

    `boxes` have ImageID, in order, and `number`. A larger cap keeps all that a smaller one keeps.
    """
    if cap is None or boxes.is_empty():
        return boxes
    groups = boxes[by].cast(pl.Categorical).to_physical().to_numpy()
    crowded = np.flatnonzero(np.bincount(groups)[groups] > cap)
    ranks = _draw_box_ranks(boxes[crowded], seed)
    order = np.lexsort((ranks, groups[crowded]))
    sizes = np.unique(groups[crowded], return_counts=True)[1]
    places = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stays = np.ones(boxes.height, bool)
    stays[crowded[order[places >= cap]]] = False
    return boxes.filter(pl.Series(stays))


def _draw_box_ranks(boxes: pl.DataFrame, seed: int) -> NDArray[np.uint64]:
    runs = boxes["ImageID"].rle().struct
    of_images = np.repeat(openimages.draw_ranks(runs.field("value"), seed), runs.field("len").to_numpy())
    return openimages.mix(of_images ^ boxes["number"].to_numpy().astype(np.uint64))


def _pixels(share: str, side: str) -> pl.Expr:
    return (pl.col(share) * pl.col(side)).round().cast(pl.Int64, strict=False)


def _add_masks(boxes: pl.DataFrame, masks: pl.LazyFrame | None) -> pl.DataFrame:
    """Add `object_mask`, null for a box without one; only the masks of these images are read."""
    if masks is None or boxes.is_empty():
        return boxes.with_columns(object_mask=pl.lit(None, pl.Binary))
    first, last = (pl.lit(boxes["ImageID"][place]) for place in (0, -1))
    of_images = masks.filter(pl.col("ImageID").is_between(first, last)).collect()
    return boxes.join(of_images, on=["ImageID", "number"], how="left", maintain_order="left")


def _name(boxes: pl.DataFrame, classes: pl.DataFrame, split: str) -> pl.DataFrame:
    """Bring the boxes into the output's columns; a class without a description keeps its LabelName."""
    number = pl.col("number").cast(pl.String).str.zfill(3)
    named = boxes.join(classes, on="LabelName", how="left", maintain_order="left").with_columns(
        (pl.col("ImageID") + "_" + number).alias("box_id"),
        pl.col("ImageID").alias("image_id"),
        pl.lit(split).alias("split"),
        pl.coalesce("DisplayName", "LabelName").alias("label"),
        pl.col("IsOccluded").alias("is_occluded"),
        pl.col("IsTruncated").alias("is_truncated"),
        pl.col("IsGroupOf").alias("is_group_of"),
        pl.col("IsDepiction").alias("is_depiction"),
    )
    return named.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
