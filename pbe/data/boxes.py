"""Which boxes can teach: the paper's area rule (section 4.1), OpenImages' flags, and a cap per image.

Every row of the annotation files is either kept or rejected once, under the first rule that hits, in REASONS' order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pbe.data import openimages
from pbe.data.openimages import COORDINATES, SPLITS
from pbe.files import written_whole
from pbe.settings import Filter

REASONS = (
    "invalid_coordinates",
    "image_not_acquired",
    "class",
    "area_too_small",
    "area_too_large",
    "side_too_small",
    "aspect",
    "group_of",
    "depiction",
    "occluded",
    "truncated",
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
}


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
    """Judge every box of `raw` (what `acquire` left) and write those kept to `{out}/boxes.parquet`, sorted by box_id.

    `seed` draws which boxes of an image stay under the cap. Raises ValueError naming the file and what is wrong with
    it, an unknown class, or that no box of a split is left.
    """
    manifest = raw / "manifest.parquet"
    if not manifest.exists():
        raise ValueError(f"{manifest}: no such file; run the acquire stage first")
    classes = openimages.read_classes(raw / "annotations" / openimages.CLASSES_FILE.name)
    hierarchy = openimages.read_hierarchy(raw / "annotations" / openimages.HIERARCHY_FILE.name)
    labels = openimages.find_labels(classes, settings.classes, "filter.classes", hierarchy)
    excluded = openimages.find_labels(classes, settings.exclude_classes, "filter.exclude_classes", hierarchy)
    counts: list[pl.DataFrame] = []
    kept: dict[str, pl.DataFrame] = {}
    for split in SPLITS:
        path = raw / "annotations" / openimages.BOX_FILES[split].name
        images = pl.read_parquet(manifest).filter(split=split, outcome="ok").select("image_id", "width", "height")
        judged = judge_boxes(openimages.scan_boxes(path), images, settings, labels, excluded)
        counts.append(openimages.collect(judged.group_by("reason").len(), path))
        passed = openimages.collect(judged.filter(pl.col("reason").is_null()), path)
        for reason, cap, by in (
            ("over_image_cap", settings.max_boxes_per_image, "ImageID"),
            ("over_class_cap", settings.max_boxes_per_class, "LabelName"),
        ):
            capped = cap_boxes(passed, cap, seed, by)
            counts.append(pl.DataFrame({"reason": [reason], "len": [passed.height - capped.height]}))
            passed = capped
        kept[split] = _name(passed, classes, split)
    report = _report(counts, kept)
    empty = [split for split in SPLITS if not report.kept[split]]
    if empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejects.items() if count)
        raise ValueError(f"{raw}: no {empty[0]} box passes the filter; rejected of {report.rows}: {reasons or 'none'}")
    _write(pl.concat(list(kept.values())).sort("box_id"), out / "boxes.parquet")
    return report


def judge_boxes(
    boxes: pl.LazyFrame,
    images: pl.DataFrame,
    settings: Filter,
    labels: Sequence[str] = (),
    excluded: Sequence[str] = (),
) -> pl.LazyFrame:
    """Give every box (a row of `scan_boxes`) its pixels and the `reason` it is rejected for, null when it passes.

    `images` are those acquired: image_id, width, height in pixels. `labels`, if any, are the only classes wanted,
    `excluded` those that are not. Adds box_id, width, height, x0, y0, x1, y1, area_frac. No cap is applied here.
    """
    sized = openimages.number_boxes(boxes).join(
        images.lazy(), left_on="ImageID", right_on="image_id", how="left", maintain_order="left"
    )
    in_pixels = sized.with_columns(
        _pixels("XMin", "width").alias("x0"),
        _pixels("YMin", "height").alias("y0"),
        _pixels("XMax", "width").alias("x1"),
        _pixels("YMax", "height").alias("y1"),
    )
    area = (pl.col("x1") - pl.col("x0")) * (pl.col("y1") - pl.col("y0")) / (pl.col("width") * pl.col("height"))
    return in_pixels.with_columns(area_frac=area).with_columns(reason=_first_reason(settings, labels, excluded))


def cap_boxes(boxes: pl.DataFrame, cap: int | None, seed: int, by: str = "ImageID") -> pl.DataFrame:
    """Keep at most `cap` boxes of each image (or other column): the first in an order drawn by `seed` and box_id alone.

    A larger cap keeps all that a smaller one keeps.
    """
    if cap is None or boxes.is_empty():
        return boxes
    ranks = [openimages.draw_rank(box_id, seed) for box_id in boxes["box_id"]]
    place = pl.struct("rank", "box_id").rank("ordinal").over(by)
    ranked = boxes.with_columns(pl.Series("rank", ranks, dtype=pl.UInt64))
    return ranked.filter(place <= cap).drop("rank")


def _pixels(share: str, side: str) -> pl.Expr:
    return (pl.col(share) * pl.col(side)).round().cast(pl.Int64, strict=False)


def _first_reason(settings: Filter, labels: Sequence[str], excluded: Sequence[str]) -> pl.Expr:
    """The first of REASONS that holds for a box; a rule that is switched off never does."""
    label = pl.col("LabelName")
    shares = [pl.col(name) for name in COORDINATES]
    in_range = pl.all_horizontal(*(share.is_finite() & share.is_between(0, 1) for share in shares)).fill_null(False)
    ordered = (pl.col("XMin") < pl.col("XMax")) & (pl.col("YMin") < pl.col("YMax"))
    width, height = pl.col("x1") - pl.col("x0"), pl.col("y1") - pl.col("y0")
    short, long = pl.min_horizontal(width, height), pl.max_horizontal(width, height)
    rules = {
        "invalid_coordinates": ~(in_range & ordered.fill_null(False)),
        "image_not_acquired": pl.col("width").is_null(),
        "class": (~label.is_in(list(labels)) if labels else pl.lit(False)) | label.is_in(list(excluded)),
        "area_too_small": pl.col("area_frac") < settings.min_area_frac,
        "area_too_large": pl.col("area_frac") > settings.max_area_frac,
        "side_too_small": short < settings.min_side_px,
        "aspect": long > settings.max_aspect * short,
        "group_of": pl.col("IsGroupOf") & settings.drop_group_of,
        "depiction": pl.col("IsDepiction") & settings.drop_depiction,
        "occluded": pl.col("IsOccluded") & settings.drop_occluded,
        "truncated": pl.col("IsTruncated") & settings.drop_truncated,
    }
    assert (*rules, "over_image_cap", "over_class_cap") == REASONS
    return pl.coalesce(*(pl.when(rule).then(pl.lit(reason)) for reason, rule in rules.items()))


def _name(boxes: pl.DataFrame, classes: pl.DataFrame, split: str) -> pl.DataFrame:
    """Bring the boxes into the output's columns; a class without a description keeps its LabelName."""
    named = boxes.join(classes, on="LabelName", how="left").with_columns(
        pl.col("ImageID").alias("image_id"),
        pl.lit(split).alias("split"),
        pl.coalesce("DisplayName", "LabelName").alias("label"),
        pl.col("IsOccluded").alias("is_occluded"),
        pl.col("IsTruncated").alias("is_truncated"),
        pl.col("IsGroupOf").alias("is_group_of"),
        pl.col("IsDepiction").alias("is_depiction"),
    )
    return named.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def _report(counts: list[pl.DataFrame], kept: dict[str, pl.DataFrame]) -> FilterReport:
    rejects = dict.fromkeys(REASONS, 0)
    for reason, count in pl.concat(counts, how="vertical_relaxed").drop_nulls("reason").iter_rows():
        rejects[reason] += count
    boxes = {split: table.height for split, table in kept.items()}
    images = {split: table["image_id"].n_unique() for split, table in kept.items()}
    return FilterReport(sum(boxes.values()) + sum(rejects.values()), boxes, images, rejects)


def _write(boxes: pl.DataFrame, target: Path) -> None:
    with written_whole(target) as part:
        boxes.rechunk().write_parquet(part)
