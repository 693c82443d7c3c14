"""One pass over a bench: each case is decoded once, each result encoded once, and every metric reads from that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.evaluation.attributes import AttributeJudge, Readings, join_readings, read_boxes, read_exemplars
from pbe.evaluation.bench import Bench, Case, Image
from pbe.evaluation.encoders import FeatureEncoder, Features, encode_batch, encode_whole
from pbe.evaluation.metrics import clip_scores, unmasked_max_abs_diff

ResultOf = Callable[[Case], Image]


@dataclass(frozen=True)
class Scores:
    """What was measured of one method, case by case: N rows each, in bench order."""

    features: Features  # (N, D), of the whole results
    clip_scores: NDArray[np.float64]  # (N,)
    unmasked_max_abs_diff: NDArray[np.int64]  # (N,)
    readings: Readings | None  # what the judge read in the repainted boxes

    def __len__(self) -> int:
        return len(self.clip_scores)

    def head(self, num_cases: int) -> "Scores":
        """The first cases only."""
        readings = None if self.readings is None else {k: v[:num_cases] for k, v in self.readings.items()}
        return Scores(
            self.features[:num_cases], self.clip_scores[:num_cases], self.unmasked_max_abs_diff[:num_cases], readings
        )


@dataclass
class _Parts:
    features: list[Features] = field(default_factory=list)
    clip_scores: list[NDArray[np.float64]] = field(default_factory=list)
    differences: list[int] = field(default_factory=list)
    readings: list[Readings] = field(default_factory=list)

    def join(self) -> Scores:
        return Scores(
            np.concatenate(self.features),
            np.concatenate(self.clip_scores),
            np.array(self.differences, np.int64),
            join_readings(self.readings) if self.readings else None,
        )


def score_methods(
    bench: Bench,
    methods: Mapping[str, ResultOf],
    encoder: FeatureEncoder,
    judge: AttributeJudge | None,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Scores], Readings | None]:
    """Score every method on every case; returns the scores by method, and what the judge read off the exemplars.

    Raises UserError naming the case when a result has another size than its source.
    """
    parts = {name: _Parts() for name in methods}
    exemplar_readings: list[Readings] = []
    for start in range(0, len(bench), batch_size):
        cases = [bench.case(i) for i in bench.ids[start : start + batch_size]]
        exemplars = [case.exemplar for case in cases]
        exemplar_features = encode_batch(encoder, exemplars)
        for name, result_of in methods.items():
            _score_batch(cases, [result_of(c) for c in cases], exemplar_features, encoder, judge, parts[name])
        if judge is not None:
            exemplar_readings.append(read_exemplars(judge, exemplars))
        if progress is not None:
            progress(min(start + batch_size, len(bench)), len(bench))
    scores = {name: part.join() for name, part in parts.items()}
    return scores, join_readings(exemplar_readings) if exemplar_readings else None


def _score_batch(
    cases: Sequence[Case],
    results: Sequence[Image],
    exemplar_features: Features,
    encoder: FeatureEncoder,
    judge: AttributeJudge | None,
    parts: _Parts,
) -> None:
    for case, result in zip(cases, results, strict=True):
        if result.shape != case.source.shape:
            raise UserError(f"case {case.id}: the result is {result.shape}, its source {case.source.shape}")
        parts.differences.append(unmasked_max_abs_diff(result, case.source, case.mask))
    boxes = [case.box for case in cases]
    crops = [image[y0:y1, x0:x1] for image, (x0, y0, x1, y1) in zip(results, boxes, strict=True)]
    parts.features.append(encode_whole(encoder, results))
    parts.clip_scores.append(clip_scores(encode_batch(encoder, crops), exemplar_features))
    if judge is not None:
        parts.readings.append(read_boxes(judge, results, boxes))
