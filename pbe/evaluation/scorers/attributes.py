"""Whether the repainted box shows the exemplar's attributes, as a scorer: where the true attributes are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pbe.evaluation.attributes import CORRECT, ON_EXEMPLAR, ON_SOURCE, AttributeClassifier, correct_readings
from pbe.evaluation.scoring.case_scores import CaseBatch, Floats
from pbe.types import Image


@dataclass(frozen=True)
class AttributeScorer:
    """Columns `<attribute>_correct`: 1 where the classifier reads the exemplar's attribute in the box, otherwise 0.

    `<attribute>_on_exemplar` and `<attribute>_on_source` say the same of true, unedited crops: the exemplar, and the
    box before the edit. NaN where the truth is not known, or has no such attribute. `key` is a digest of the
    classifier's weights.
    """

    classifier: AttributeClassifier
    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(
            name + ending for name in self.classifier.attributes for ending in (CORRECT, ON_EXEMPLAR, ON_SOURCE)
        )

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, Floats]:
        origins = batch.origins or ()
        wanted = [origin.exemplar_truth for origin in origins] or [{}] * len(batch)
        readings = self.classifier.read_boxes(results, batch.boxes)
        columns = {name + CORRECT: correct_readings(name, readings, wanted) for name in self.classifier.attributes}
        return columns | batch.once(f"true crops {self.key}", lambda: self._score_true_crops(batch))

    def _score_true_crops(self, batch: CaseBatch) -> dict[str, Floats]:
        origins = batch.origins or ()
        exemplars = self.classifier.read_exemplars([case.exemplar for case in batch.cases])
        sources = self.classifier.read_boxes([case.source for case in batch.cases], batch.boxes)
        truths = (
            (ON_EXEMPLAR, exemplars, [origin.exemplar_truth for origin in origins] or [{}] * len(batch)),
            (ON_SOURCE, sources, [origin.source_truth for origin in origins] or [{}] * len(batch)),
        )
        return {
            name + ending: correct_readings(name, readings, truth)
            for ending, readings, truth in truths
            for name in self.classifier.attributes
        }
