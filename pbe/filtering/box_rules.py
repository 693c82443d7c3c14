"""The rules that a training box must pass: on its row, on the size of its image, and the caps (section 4.1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.dataset import openimages
from pbe.dataset.image_shards import LOCATION
from pbe.dataset.openimages import COORDINATES
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
IMAGE_COLUMNS = ("width", "height", *LOCATION)
_REASON = pl.Enum(REASONS)


def apply_row_rules(
    boxes: pl.LazyFrame, settings: Filter, labels: Sequence[str] = (), excluded: Sequence[str] = ()
) -> pl.LazyFrame:
    """Add the `reason` for which the rules on the row reject a box (a row of `scan_boxes`), null when it passes.

    Only the classes `labels` are kept, or all when it is empty, and `excluded` are rejected; so is a row without a
    class. A row without ImageID gets "".
    """
    label = pl.col("LabelName")
    coordinates = [pl.col(name) for name in COORDINATES]
    in_range = pl.all_horizontal(*(value.is_finite() & value.is_between(0, 1) for value in coordinates))
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
    return boxes.with_columns(pl.col("ImageID").fill_null(""), reason=_first_reason(rules))


def apply_size_rules(boxes: pl.DataFrame, images: pl.DataFrame, settings: Filter) -> pl.DataFrame:
    """Add a box's pixels and the `reason` for which the rules on its image's size reject it, null when it passes.

    `boxes` and `images` (the acquired ones: image_id, width and height in pixels, location) are sorted by image. Adds
    width, height, location, x0, y0, x1, y1 and area_frac.
    """
    if boxes.height:
        first, last = boxes["ImageID"][0], boxes["ImageID"][-1]
        ids = images["image_id"]
        images = images[ids.search_sorted(first, side="left") : ids.search_sorted(last, side="right")]
    sized = boxes.join(
        images.select("image_id", *IMAGE_COLUMNS),
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
    return in_pixels.with_columns(area_frac=area, reason=_first_reason(rules))


def _first_reason(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    """Return the name of the first rule that rejects a box, as a member of REASONS; null when none does."""
    return pl.coalesce(*(pl.when(rule).then(pl.lit(reason, _REASON)) for reason, rule in rules.items()))


def cap_boxes(boxes: pl.DataFrame, cap: int | None, seed: int, by: str = "ImageID") -> pl.DataFrame:
    """Keep at most `cap` boxes of each image (or value of the column `by`), in their order.

    `boxes` have ImageID, sorted, and `number`. Which boxes stay depends on `seed` and the box alone; a larger cap keeps
    all boxes that a smaller one keeps.
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
    of_image = np.repeat(openimages.draw_ranks(runs.field("value"), seed), runs.field("len").to_numpy())
    return openimages.mix(of_image ^ boxes["number"].to_numpy().astype(np.uint64))


def _pixels(fraction: str, side: str) -> pl.Expr:
    return (pl.col(fraction) * pl.col(side)).round().cast(pl.Int64, strict=False)
