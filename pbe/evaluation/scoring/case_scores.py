"""What is scored case by case: methods, scorers, the batches of cases that scorers share, and the table of scores.

case_scores.parquet     a row for each case and method: case_id, method, label, mask_frac, exemplar_px, and a column
                        for each score, NaN where it does not apply
features.npz            the features of whole results (N, D) by method, those of real images (M, D) as `real`, and
                        their moments as `real.mean`, `real.covariance` and `real.num_images`
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pbe.dataset.images import read_image
from pbe.evaluation.benches.bench import Bench, Case, Origin, result_path
from pbe.evaluation.encoders.protocol import Features
from pbe.evaluation.reference.statistics import ReferenceStatistics
from pbe.runtime.files import atomic_file, digest_files
from pbe.types import Box, Image

Floats = NDArray[np.float64]
ResultOf = Callable[[Case], Image]
T = TypeVar("T")

LABEL, MASK_FRAC, EXEMPLAR_PX = "label", "mask_frac", "exemplar_px"  # columns to slice by


@dataclass(frozen=True)
class CaseBatch:
    """Cases that are scored together, for every method in turn; `origins` is None where the bench has none."""

    cases: tuple[Case, ...]
    origins: tuple[Origin, ...] | None = None
    _shared: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.cases)

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The bounding boxes of the masks."""
        return tuple(case.box for case in self.cases)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what `make` returns, computed once for the batch: whatever does not depend on a method.

        Every scorer that uses a key has to make the same; features of exemplars, for example, have the encoder's digest
        in their key.
        """
        if key not in self._shared:
            self._shared[key] = make()
        value: T = self._shared[key]
        return value


class CaseScorer(Protocol):
    """Scores results case by case, in one or more columns."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, none of which another scorer has."""

    @property
    def key(self) -> str:
        """What decides the scores apart from the code, such as a digest of weights and the size of its input."""

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Floats]:
        """Return a row for each case in every column, NaN where the score does not apply.

        `results` has an image of its source's size for each case of the batch.
        """


@dataclass(frozen=True)
class Method:
    """What is scored: results on disk, or those that a baseline computes when they are asked for.

    `key` changes whenever the results may have changed: scores of an interrupted run are reused under the same key.
    `num_cases` is None when all cases have a result, otherwise only the first ones have; `missing` are the ids of
    further cases without one. `scorers` score this method alone.
    """

    name: str
    result_of: ResultOf
    key: str = ""
    num_cases: int | None = None
    missing: frozenset[int] = frozenset()
    scorers: tuple[CaseScorer, ...] = ()

    def ids(self, bench: Bench) -> tuple[int, ...]:
        """Return the cases that have a result, in the order of the bench."""
        return tuple(i for i in bench.ids[: self.num_cases] if i not in self.missing)


def read_result(folder: Path, case: Case) -> Image:
    """Return the result of a case in a folder."""
    return read_image(result_path(folder, case.id))


def painted_method(
    name: str, folder: Path, bench: Bench, num_cases: int | None = None, scorers: Iterable[CaseScorer] = ()
) -> Method:
    """Return the method whose results are files `{id:012d}.png` in a folder; its key is a digest of their contents."""
    key = digest_files(result_path(folder, i) for i in bench.ids[:num_cases])
    return Method(name, partial(read_result, folder), key, num_cases, scorers=tuple(scorers))


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method on N cases, in the order of the bench.

    `columns` are (N,) each; `features`, of whole results, are (N, D) and keyed by the protocol that encodes them.
    """

    ids: tuple[int, ...]
    columns: Mapping[str, Floats]
    features: Mapping[str, Features]

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, num_cases: int) -> "MethodScores":
        """Return the scores of the first `num_cases` cases."""
        columns = {name: values[:num_cases] for name, values in self.columns.items()}
        features = {name: values[:num_cases] for name, values in self.features.items()}
        return MethodScores(self.ids[:num_cases], columns, features)


def write_case_scores(path: Path, bench: Bench, scores: Mapping[str, MethodScores]) -> None:
    """Write the scores of every method to a Parquet file, atomically."""
    labels = {origin.case_id: origin.exemplar_label for origin in bench.origins or ()}
    tables = [
        pl.DataFrame(
            {
                "case_id": pl.Series(own.ids, dtype=pl.Int64),
                "method": pl.Series([name] * len(own), dtype=pl.String),
                LABEL: pl.Series([labels.get(i, "") for i in own.ids], dtype=pl.String),
                **own.columns,
            }
        )
        for name, own in scores.items()
    ]
    table = pl.concat(tables, how="diagonal").with_columns(pl.col(pl.Float64).fill_null(float("nan")))
    with atomic_file(path) as part:
        table.write_parquet(part)


def read_case_scores(path: Path) -> pl.DataFrame:
    """Read what `write_case_scores` wrote."""
    return pl.read_parquet(path)


def write_features(path: Path, features: Mapping[str, Features], reference: ReferenceStatistics) -> None:
    """Write the features of every method and of real images, with the moments of all real images, atomically."""
    moments = reference.moments
    arrays: dict[str, NDArray[Any]] = {
        **features,
        "real": reference.features,
        "real.mean": moments.mean,
        "real.covariance": moments.covariance,
        "real.num_images": np.array(moments.num_images),
    }
    with atomic_file(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
