"""Scorers of the paper's tables: the CLIP score of each protocol, and the change outside the mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.preservation import unmasked_max_abs_diff
from pbe.evaluation.scoring.case_scores import CaseBatch, Floats
from pbe.evaluation.scoring.protocols import EvaluationProtocol
from pbe.types import Image


@dataclass(frozen=True)
class ClipScorer:
    """The CLIP score as a protocol defines it; NaN where the protocol has no crop."""

    protocol: EvaluationProtocol

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"clip_score{self.protocol.suffix}",)

    @property
    def key(self) -> str:
        return f"{self.protocol.name} {self.protocol.features.encoder.digest}"

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Floats]:
        features = self.protocol.features
        exemplars = batch.once(
            f"exemplars {self.key}", lambda: features.exemplars([case.exemplar for case in batch.cases])
        )
        boxes = features.boxes(results, [case.mask for case in batch.cases])
        return {self.columns[0]: clip_scores(boxes, exemplars)}


@dataclass(frozen=True)
class UnmaskedScorer:
    """The largest change of any channel outside the mask, in grey levels 0..255."""

    columns: tuple[str, ...] = ("unmasked_max_abs_diff",)
    key: str = ""

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Floats]:
        pairs = zip(results, batch.cases, strict=True)
        found = [unmasked_max_abs_diff(result, case.source, case.mask) for result, case in pairs]
        return {self.columns[0]: np.array(found, np.float64)}
