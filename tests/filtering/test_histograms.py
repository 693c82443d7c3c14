"""Histograms of kept boxes: every box counts once, in its bin and under its split."""

from pathlib import Path

import polars as pl

from pbe.filtering.histograms import NAMES, box_histograms, write_histograms

BOXES = pl.LazyFrame(
    {
        "split": ["train", "train", "train", "validation"],
        "label": ["Cat", "Dog", "Dog", "Ant"],
        "x0": [0, 0, 0, 0],
        "y0": [0, 0, 0, 0],
        "x1": [10, 400, 10, 50],
        "y1": [10, 10, 40, 50],
        "area_frac": [0.03, 0.3, 0.31, 1.0],
    }
)


def test_every_box_is_counted_once() -> None:
    histograms = box_histograms(BOXES)
    assert set(histograms) == set(NAMES)
    for histogram in histograms.values():
        assert (histogram["train"].sum(), histogram["validation"].sum()) == (3, 1)


def test_boxes_count_in_their_bins_and_outliers_in_the_last() -> None:
    histograms = box_histograms(BOXES)
    area = histograms["area"].filter(pl.col("train") + pl.col("validation") > 0)
    assert area.rows() == [(0.025, 1, 0), (0.3, 2, 0), (0.975, 0, 1)]
    aspect = histograms["aspect"].filter(pl.col("train") > 0)["aspect"].to_list()
    assert aspect[0] <= 0.25 < aspect[1] <= 1.0
    assert aspect[2] == histograms["aspect"]["aspect"][-1]  # 40 : 1


def test_classes_are_sorted_by_count_then_name() -> None:
    assert box_histograms(BOXES)["classes"].rows() == [("Dog", 2, 0), ("Ant", 0, 1), ("Cat", 1, 0)]


def test_the_files_are_csv(tmp_path: Path) -> None:
    BOXES.sink_parquet(tmp_path / "boxes.parquet")
    write_histograms(tmp_path / "boxes.parquet", {"aspect": 2, "truncated": 5}, tmp_path / "boxes")
    assert sorted(p.stem for p in (tmp_path / "boxes").iterdir()) == ["area", "aspect", "classes", "rejects"]
    assert (tmp_path / "boxes" / "classes.csv").read_text().splitlines()[0] == "label,train,validation"
    assert (tmp_path / "boxes" / "rejects.csv").read_text() == "rule,boxes\ntruncated,5\naspect,2\n"
