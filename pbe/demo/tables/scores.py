"""The scores that the tables are made of: a matrix, seeds by cases, for each model, guidance scale and bench."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.demo.tables.estimates import Values

Features = NDArray[np.float32]  # (N, D), of whole results

FID = "fid"  # of all results together; the other metrics have a column
BOX_BENCH, IRREGULAR_BENCH = "box", "irregular"  # the masks of a bench
ATTRIBUTES = ("shape", "colour", "pattern")
ATTRIBUTES_CORRECT = "attributes"  # the share, in percent, of ATTRIBUTES that the classifier finds
COPIED_WHEN_RIGHT = "copied_when_right"  # the copy-paste score where all of ATTRIBUTES are right, otherwise NaN


@dataclass(frozen=True)
class Source:
    """What painted a set of pictures: a variant or a baseline, at a guidance scale, on a bench."""

    painter: str
    guidance: float
    bench: str = BOX_BENCH

    def method(self, seed: int) -> str:
        """The name of the pictures of one seed in scores and folders."""
        return f"{self.painter}-{seed}-guidance-{self.guidance:g}-{self.bench}"


@dataclass(frozen=True)
class Scores:
    """All scores: `cases` has a row for each case and method, `features` an array for each method."""

    seeds: Sequence[int]
    cases: pl.DataFrame
    features: Mapping[str, Features]
    _matrices: dict[tuple[Source, str], Values] = field(default_factory=dict, repr=False, compare=False)

    def has(self, source: Source) -> bool:
        """Return whether the pictures of all seeds were scored."""
        return all(source.method(seed) in self.features for seed in self.seeds)

    def num_cases(self, source: Source) -> int:
        """Return how many cases of a source were scored."""
        return len(self.features[source.method(self.seeds[0])])

    def head(self, num_cases: int) -> "Scores":
        """Return the scores of the first `num_cases` cases of every method."""
        first = self.cases.sort("case_id").group_by("method", maintain_order=True).head(num_cases)
        features = {name: values[:num_cases] for name, values in self.features.items()}
        return Scores(self.seeds, first, features)

    def matrix(self, source: Source, metric: str) -> Values:
        """Return a column of scores as a matrix (S, N), cases in the order of their ids."""
        if (source, metric) not in self._matrices:
            names = [source.method(seed) for seed in self.seeds]
            frame = self.cases.filter(pl.col("method").is_in(names)).sort("case_id")
            rows = [frame.filter(pl.col("method") == name)[metric].to_numpy() for name in names]
            self._matrices[source, metric] = np.stack(rows).astype(np.float64)
        return self._matrices[source, metric]


def with_attributes(cases: pl.DataFrame) -> pl.DataFrame:
    """Add ATTRIBUTES_CORRECT and COPIED_WHEN_RIGHT, where the columns `<attribute>_correct` are known."""
    columns = [f"{name}_correct" for name in ATTRIBUTES]
    if not set(columns) <= set(cases.columns):
        return cases
    found = cases.with_columns((100 * pl.mean_horizontal(*columns)).alias(ATTRIBUTES_CORRECT))
    if "copy_paste_score" not in cases.columns:
        return found
    is_right = pl.all_horizontal(pl.col(column) == 1 for column in columns)
    return found.with_columns(
        pl.when(is_right).then("copy_paste_score").otherwise(float("nan")).alias(COPIED_WHEN_RIGHT)
    )
