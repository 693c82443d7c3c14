"""The scorer of diversity: the results of one method beside those that it painted with other seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.diversity import feature_diversity, pixel_diversity
from pbe.evaluation.metrics.identity import crop
from pbe.evaluation.scoring.case_scores import CaseBatch, Method
from pbe.types import Image

Column = NDArray[np.float64]


class DiversityScorer:
    """How different a method's results are over seeds, by features of the repainted box and by its pixels.

    `seeds` are the method's results with further seeds. NaN for a case that one of them has not painted. Without an
    encoder, pixels alone are compared.
    """

    def __init__(self, seeds: Sequence[Method], bench: Bench, encoder: FeatureEncoder | None) -> None:
        self.columns = ("pixel_diversity",) if encoder is None else ("diversity", "pixel_diversity")
        keys = " ".join(f"{seed.name} {seed.key}" for seed in seeds)
        self.key = f"{encoder.digest if encoder else 'pixels'}, {keys}"
        self._seeds, self._encoder = seeds, encoder
        painted = [set(seed.ids(bench)) for seed in seeds]
        self._ids = set(bench.ids).intersection(*painted) if painted else set()

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Column]:
        """Score results by how far those of the further seeds are from them and from each other; see `CaseScorer`."""
        rows = [self._row(case, result) for case, result in zip(batch.cases, results, strict=True)]
        return dict(zip(self.columns, np.array(rows, np.float64).T, strict=True))

    def _row(self, case: Case, result: Image) -> list[float]:
        if case.id not in self._ids:
            return [float("nan")] * len(self.columns)
        drawn = [result, *(seed.result_of(case) for seed in self._seeds)]
        pixels = pixel_diversity(drawn, case.mask)
        if self._encoder is None:
            return [pixels]
        return [feature_diversity(encode_batch(self._encoder, [crop(image, case.box) for image in drawn])), pixels]
