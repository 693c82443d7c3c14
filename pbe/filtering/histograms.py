"""Histograms of the kept boxes by area, aspect and class, and of the rejected ones by rule: the data of DVC plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.dataset.openimages import SPLITS
from pbe.runtime.files import atomic_file

AREA_EDGES = np.round(np.linspace(0.0, 1.0, 41), 3)  # fraction of the image
ASPECT_EDGES = np.round(np.geomspace(1 / 8, 8, 25), 3)  # width over height, even in its logarithm
NAMES = ("area", "aspect", "classes")


def box_histograms(boxes: pl.LazyFrame) -> dict[str, pl.DataFrame]:
    """Return a histogram for each of NAMES: the lower edge of the bin, or the class, and a count for each split.

    `boxes` is a scan of boxes.parquet.
    """
    aspect = (pl.col("x1") - pl.col("x0")) / (pl.col("y1") - pl.col("y0"))
    classes = boxes.group_by("label").agg(*((pl.col("split") == split).sum().alias(split) for split in SPLITS))
    area, aspects, counts = pl.collect_all(
        [
            _bins(boxes, pl.col("area_frac"), AREA_EDGES),
            _bins(boxes, aspect, ASPECT_EDGES),
            classes.sort(pl.sum_horizontal(SPLITS), "label", descending=[True, False]),
        ],
        engine="streaming",
    )
    return {
        "area": _histogram(area, "area_frac", AREA_EDGES),
        "aspect": _histogram(aspects, "aspect", ASPECT_EDGES),
        "classes": counts,
    }


def write_histograms(boxes: Path, rejects: Mapping[str, int], folder: Path) -> None:
    """Write to `folder` a CSV file for each of NAMES from `boxes`, a boxes.parquet, and rejects.csv, counts by rule."""
    histograms = box_histograms(pl.scan_parquet(boxes))
    rules = sorted(rejects.items(), key=lambda item: (-item[1], item[0]))
    histograms["rejects"] = pl.DataFrame(rules, schema={"rule": pl.String, "boxes": pl.Int64}, orient="row")
    for name, histogram in histograms.items():
        with atomic_file(folder / f"{name}.csv") as part:
            histogram.write_csv(part)


def _bins(boxes: pl.LazyFrame, value: pl.Expr, edges: NDArray[np.float64]) -> pl.LazyFrame:
    """Count rows by split and bin; values outside the edges count in the first or the last bin.

    numpy.histogram would need the values of all boxes in memory.
    """
    number = pl.sum_horizontal((value >= edge).cast(pl.Int32) for edge in edges[1:-1])
    return boxes.group_by("split", number.alias("bin")).agg(pl.len().alias("count"))


def _histogram(counted: pl.DataFrame, column: str, edges: NDArray[np.float64]) -> pl.DataFrame:
    columns: dict[str, NDArray[Any]] = {column: edges[:-1]}
    for split in SPLITS:
        found = counted.filter(split=split)
        columns[split] = np.zeros(len(edges) - 1, np.int64)
        columns[split][found["bin"].to_numpy()] = found["count"].to_numpy()
    return pl.DataFrame(columns)
