"""What the kept boxes are like: histograms of area, aspect and class, by split, as DVC plots."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.data.openimages import SPLITS
from pbe.files import written_whole

AREA_EDGES = np.round(np.linspace(0.0, 1.0, 41), 3)  # share of the image
ASPECT_EDGES = np.round(np.geomspace(1 / 8, 8, 25), 3)  # width over height, evenly in its logarithm
NAMES = ("area", "aspect", "classes")


def box_histograms(boxes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Tables by NAMES from rows of boxes.parquet: the bin's lower edge or the class, then a count for each split."""
    width, height = pl.col("x1") - pl.col("x0"), pl.col("y1") - pl.col("y0")
    measured = boxes.select("split", "label", area_frac=pl.col("area_frac"), aspect=width / height)
    counts = measured.group_by("label").agg(*((pl.col("split") == split).sum().alias(split) for split in SPLITS))
    return {
        "area": _histogram(measured, "area_frac", AREA_EDGES),
        "aspect": _histogram(measured, "aspect", ASPECT_EDGES),
        "classes": counts.sort(pl.sum_horizontal(SPLITS), "label", descending=[True, False]),
    }


def write_histograms(boxes: pl.DataFrame, folder: Path) -> None:
    """Write one CSV file for each of NAMES."""
    for name, table in box_histograms(boxes).items():
        with written_whole(folder / f"{name}.csv") as part:
            table.write_csv(part)


def _histogram(measured: pl.DataFrame, column: str, edges: NDArray[np.float64]) -> pl.DataFrame:
    """Counts by split; what lies outside the edges counts in the first or the last bin."""
    table: dict[str, NDArray[Any]] = {column: edges[:-1]}
    for split in SPLITS:
        values = measured.filter(split=split)[column].to_numpy()
        table[split] = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return pl.DataFrame(table)
