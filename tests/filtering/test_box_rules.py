"""The rules on boxes: each rule alone, their order, and the caps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.dataset.openimages import REQUIRED_COLUMNS, number_boxes, scan_boxes
from pbe.demo.bucket import name_image
from pbe.demo.scenes import draw_scene
from pbe.filtering.box_rules import REASONS, apply_row_rules, apply_size_rules, cap_boxes
from pbe.settings import Filter
from tests.support import parameters

LOCATION = {"shard": "train-00000.tar", "offset": 512, "num_bytes": 1000}
IMAGES = pl.DataFrame(
    {"image_id": ["i", "j"], "width": [200, 100], "height": [100, 100]},
    schema_overrides={"width": pl.Int32, "height": pl.Int32},
).with_columns(pl.lit(v).alias(k) for k, v in LOCATION.items())
TYPES = dict.fromkeys(("XMin", "XMax", "YMin", "YMax"), pl.Float64) | {
    name: pl.Boolean for name in REQUIRED_COLUMNS if name.startswith("Is")
}


NO = (False, False, False, False)


def frame(*rows: tuple[Any, ...]) -> pl.LazyFrame:
    """Return rows of (image, x0, x1, y0, y1, occluded, truncated, group, depiction), all of class /m/1."""
    full = [(row[0], "/m/1", *row[1:]) for row in rows]
    schema = {name: TYPES.get(name, pl.String) for name in REQUIRED_COLUMNS}
    return pl.LazyFrame(full, schema=schema, orient="row")


def check(
    boxes: pl.LazyFrame,
    images: pl.DataFrame = IMAGES,
    settings: Filter | None = None,
    labels: Sequence[str] = (),
    excluded: Sequence[str] = (),
) -> pl.DataFrame:
    """Return all boxes with their reason: the rules on the row come first, then those on the size of the image."""
    settings = settings or parameters.filtering()
    rows = apply_row_rules(boxes, settings, labels, excluded).collect()
    checked = number_boxes(rows.sort("ImageID", maintain_order=True))
    sized = apply_size_rules(checked, images, settings)
    return sized.with_columns(reason=pl.coalesce(checked["reason"], sized["reason"]))


def reasons(*rows: tuple[Any, ...], labels: Sequence[str] = (), **changes: Any) -> list[str | None]:
    return check(frame(*rows), IMAGES, parameters.filtering(**changes), labels)["reason"].to_list()


def test_excluded_classes_are_rejected_as_class() -> None:
    row = ("i", 0.1, 0.5, 0.1, 0.9, *NO)
    checked = check(frame(row), excluded=["/m/1"])
    assert checked["reason"].to_list() == ["class"]
    assert reasons(row, labels=["/m/1"]) == [None]


def test_a_larger_class_cap_keeps_the_boxes_of_a_smaller_one() -> None:
    ids = [f"{n:03d}" for n in range(40)]
    boxes = pl.DataFrame({"ImageID": ids, "number": [0] * 40, "LabelName": ["a", "b"] * 20})
    kept = {cap: set(cap_boxes(boxes, cap, 0, "LabelName")["ImageID"]) for cap in (3, 7, None)}
    assert [len(k) for k in kept.values()] == [6, 14, 40]
    assert kept[3] < kept[7] < kept[None]
    assert cap_boxes(boxes, 3, 1, "LabelName")["ImageID"].to_list() != sorted(kept[3])


@pytest.mark.parametrize(
    ("coordinates", "reason"),
    [
        ((0.1, 0.5, 0.1, 0.9), None),
        ((0.5, 0.1, 0.1, 0.9), "invalid_coordinates"),
        ((0.1, 1.1, 0.1, 0.9), "invalid_coordinates"),
        ((-0.1, 0.5, 0.1, 0.9), "invalid_coordinates"),
        ((float("nan"), 0.5, 0.1, 0.9), "invalid_coordinates"),
        ((None, 0.5, 0.1, 0.9), "invalid_coordinates"),
        ((0.1, float("inf"), 0.1, 0.9), "invalid_coordinates"),
        ((0.1, 0.2, 0.1, 0.2), "area_too_small"),
        ((0.0, 1.0, 0.1, 1.0), "area_too_large"),
        ((0.0, 1.0, 0.1, 0.15), "side_too_small"),
        ((0.0, 1.0, 0.1, 0.5), "aspect"),
    ],
)
def test_each_rule_on_the_box(coordinates: tuple[float | None, ...], reason: str | None) -> None:
    assert reasons(("i", *coordinates, *NO)) == [reason]


@pytest.mark.parametrize(
    ("position", "reason", "switch"),
    [
        (0, "occluded", "drop_occluded"),
        (1, "truncated", "drop_truncated"),
        (2, "group_of", "drop_group_of"),
        (3, "depiction", "drop_depiction"),
    ],
)
def test_each_flag_has_its_switch(position: int, reason: str | None, switch: str) -> None:
    row = ("i", 0.1, 0.5, 0.1, 0.9, *(index == position for index in range(4)))
    on: dict[str, Any] = {switch: True}
    off: dict[str, Any] = {switch: False}
    assert reasons(row, **on) == [reason]
    assert reasons(row, **off) == [None]


def test_the_first_reason_wins() -> None:
    assert reasons(("absent", 0.1, 0.2, 0.1, 0.2, True, True, True, True)) == ["area_too_small"]
    assert reasons(("absent", 0.1, 0.5, 0.1, 0.9, *NO)) == ["image_not_acquired"]
    assert reasons(("i", 0.1, 0.2, 0.1, 0.2, True, True, True, True)) == ["area_too_small"]
    assert reasons(("i", 0.1, 0.5, 0.1, 0.9, True, True, True, True)) == ["group_of"]


def test_boxes_of_other_classes_or_none_are_rejected() -> None:
    without = frame(("i", 0.1, 0.5, 0.1, 0.9, *NO)).with_columns(LabelName=pl.lit(None, pl.String))
    assert check(without)["reason"].to_list() == ["class"]
    assert reasons(("i", 0.1, 0.5, 0.1, 0.9, *NO), labels=["/m/2"]) == ["class"]
    assert reasons(("i", 0.1, 0.5, 0.1, 0.9, *NO), labels=["/m/1"]) == [None]


def test_a_box_in_pixels() -> None:
    box = check(frame(("i", 0.1, 0.5, 0.25, 0.75, *NO))).row(0, named=True)
    assert [box[name] for name in ("x0", "y0", "x1", "y1", "width", "height")] == [20, 25, 100, 75, 200, 100]
    assert box["area_frac"] == pytest.approx(0.2)
    assert box["number"] == 0


def test_a_cap_keeps_that_many_boxes_of_each_image_and_always_the_same() -> None:
    boxes = pl.DataFrame({"ImageID": ["a"] * 5 + ["b"], "number": [0, 1, 2, 3, 4, 0]})
    capped = cap_boxes(boxes, 2, seed=0)
    assert capped["ImageID"].to_list() == ["a", "a", "b"]
    assert capped.equals(cap_boxes(boxes, 2, seed=0))
    assert cap_boxes(boxes, None, seed=0).equals(boxes)
    assert len({tuple(cap_boxes(boxes, 2, seed=seed)["number"]) for seed in range(12)}) > 1
    assert set(cap_boxes(boxes, 1, seed=0).iter_rows()) < set(capped.iter_rows())


coordinate = st.one_of(st.floats(-0.2, 1.2), st.sampled_from([float("nan"), float("inf"), None, 0.0, 1.0]))
row = st.tuples(
    st.sampled_from(["i", "j", "absent"]), coordinate, coordinate, coordinate, coordinate, *[st.booleans()] * 4
)


@settings(max_examples=25, deadline=None)
@given(st.lists(row, min_size=1, max_size=30), st.integers(1, 3))
def test_every_box_is_kept_or_has_one_reason(rows: list[tuple[Any, ...]], cap: int) -> None:
    rules = parameters.filtering(max_boxes_per_image=cap)
    checked = check(frame(*rows), settings=rules)
    assert checked.height == len(rows)
    assert checked.select("ImageID", "number").is_unique().all()
    assert set(checked["reason"].drop_nulls()) <= set(REASONS)
    kept = cap_boxes(checked.filter(pl.col("reason").is_null()), cap, seed=0)
    assert kept.group_by("ImageID").len()["len"].max() in (None, *range(1, cap + 1))
    for box in kept.iter_rows(named=True):
        assert 0 <= box["x0"] < box["x1"] <= box["width"]
        assert 0 <= box["y0"] < box["y1"] <= box["height"]
        area = (box["x1"] - box["x0"]) * (box["y1"] - box["y0"]) / (box["width"] * box["height"])
        assert rules.min_area_frac <= area <= rules.max_area_frac
        assert min(box["x1"] - box["x0"], box["y1"] - box["y0"]) >= rules.min_side_px


def test_the_boxes_of_the_demo_world_come_back_as_drawn(bucket: Path) -> None:
    path = bucket / "openimages" / "v5" / "validation-annotations-bbox.csv"
    scenes = {name_image(3, "validation", i): draw_scene(np.random.default_rng([3, 1, i])) for i in range(40)}
    sizes = [(name, scene.image.shape[1], scene.image.shape[0]) for name, scene in scenes.items()]
    sizes = [(*size, *LOCATION.values()) for size in sizes]
    images = pl.DataFrame(sizes, schema=IMAGES.schema, orient="row")
    checked = check(scan_boxes(path), images.sort("image_id"), parameters.filtering(drop_truncated=False))
    copies = {
        row["image_id"] for row in pl.read_csv(bucket / "openimages/world-faults.csv").drop_nulls("of").to_dicts()
    }
    compared = 0
    for row in checked.filter(~pl.col("ImageID").is_in(list(copies))).iter_rows(named=True):
        drawn = scenes[row["ImageID"]].objects[row["number"]].box
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == drawn
        compared += 1
    assert compared > 50
    assert checked["reason"].null_count() > 50
