"""The scores of every case, in one pass over a bench: each case is decoded once, and each result is encoded once."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.attributes import AttributeClassifier, AttributeValues
from pbe.evaluation.bench import Bench, Case, Origin
from pbe.evaluation.encoders.encode import encode_batch, encode_whole
from pbe.evaluation.encoders.protocol import FeatureEncoder, Features
from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.preservation import unmasked_max_abs_diff
from pbe.runtime.files import atomic_file
from pbe.types import Box, Image, Progress, no_progress

DIGITS = 4  # of a metric; further digits differ between processors

ResultOf = Callable[[Case], Image]
T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """What is scored: results on disk, or those that a baseline computes when they are asked for.

    `key` changes whenever the results may have changed: scores of an interrupted run are reused under the same key.
    `num_cases` is None when all cases have a result, otherwise only the first ones have.
    """

    name: str
    result_of: ResultOf
    key: str = ""
    num_cases: int | None = None


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

        Every scorer that uses a key has to make the same; features of exemplars, for example, have the encoder's name
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

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, NDArray[np.float64]]:
        """Return a row for each case in every column, NaN where the score does not apply.

        `results` has an image of its source's size for each case of the batch.
        """


@dataclass(frozen=True)
class Scores:
    """The scores of one method, case by case: N rows each, in bench order."""

    features: Features  # (N, D), of the whole results
    clip_scores: NDArray[np.float64]  # (N,)
    unmasked_max_abs_diff: NDArray[np.int64]  # (N,)
    readings: tuple[AttributeValues, ...] | None  # the classifier's, in the repainted boxes

    def __len__(self) -> int:
        return len(self.clip_scores)

    def head(self, num_cases: int) -> "Scores":
        """Return the scores of the first `num_cases` cases."""
        readings = None if self.readings is None else self.readings[:num_cases]
        return Scores(
            self.features[:num_cases], self.clip_scores[:num_cases], self.unmasked_max_abs_diff[:num_cases], readings
        )


@dataclass
class _Batches:
    features: list[Features] = field(default_factory=list)
    clip_scores: list[NDArray[np.float64]] = field(default_factory=list)
    differences: list[int] = field(default_factory=list)
    readings: list[AttributeValues] = field(default_factory=list)

    def join(self) -> Scores:
        return Scores(
            np.concatenate(self.features),
            np.concatenate(self.clip_scores),
            np.array(self.differences, np.int64),
            tuple(self.readings) or None,
        )


def score_methods(
    bench: Bench,
    methods: Mapping[str, ResultOf],
    encoder: FeatureEncoder,
    classifier: AttributeClassifier | None,
    batch_size: int,
    progress: Progress = no_progress,
) -> tuple[dict[str, Scores], tuple[AttributeValues, ...] | None]:
    """Return the scores of every method by its name, and the classifier's readings of the exemplars.

    Without a classifier, there are no readings. `progress` counts cases. Raises ValueError naming the case when a
    result and its source differ in size.
    """
    batches = {name: _Batches() for name in methods}
    exemplar_readings: list[AttributeValues] = []
    for start in range(0, len(bench), batch_size):
        cases = [bench.case(i) for i in bench.ids[start : start + batch_size]]
        exemplars = [case.exemplar for case in cases]
        exemplar_features = encode_batch(encoder, exemplars)
        for name, result_of in methods.items():
            _score_batch(cases, [result_of(c) for c in cases], exemplar_features, encoder, classifier, batches[name])
        if classifier is not None:
            exemplar_readings += classifier.read_exemplars(exemplars)
        progress(min(start + batch_size, len(bench)), len(bench))
    return {name: batch.join() for name, batch in batches.items()}, tuple(exemplar_readings) or None


def _score_batch(
    cases: Sequence[Case],
    results: Sequence[Image],
    exemplar_features: Features,
    encoder: FeatureEncoder,
    classifier: AttributeClassifier | None,
    batches: _Batches,
) -> None:
    for case, result in zip(cases, results, strict=True):
        if result.shape != case.source.shape:
            raise ValueError(f"case {case.id}: the result is {result.shape}, its source {case.source.shape}")
        batches.differences.append(unmasked_max_abs_diff(result, case.source, case.mask))
    boxes = [case.box for case in cases]
    crops = [image[y0:y1, x0:x1] for image, (x0, y0, x1, y1) in zip(results, boxes, strict=True)]
    batches.features.append(encode_whole(encoder, results))
    batches.clip_scores.append(clip_scores(encode_batch(encoder, crops), exemplar_features))
    if classifier is not None:
        batches.readings += classifier.read_boxes(results, boxes)


def write_case_scores(path: Path, bench: Bench, scores: Scores, classifier: AttributeClassifier | None) -> None:
    """Write a CSV with a row for each case: its CLIP score and, with a classifier, its readings of the box."""
    rows = [
        {"case_id": str(case_id), "clip_score": f"{score:.{DIGITS}f}"}
        for case_id, score in zip(bench.ids, scores.clip_scores, strict=True)
    ]
    if classifier is not None and scores.readings is not None:
        for row, reading in zip(rows, scores.readings, strict=True):
            row |= {name: reading[name] for name in classifier.attributes} | {"caption": classifier.caption(reading)}
    with atomic_file(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_case_scores(path: Path) -> dict[int, dict[str, str]]:
    """Read what `write_case_scores` wrote, by case id."""
    with path.open(newline="") as file:
        return {int(row.pop("case_id")): row for row in csv.DictReader(file)}
