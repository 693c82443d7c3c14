"""`evaluate.protocol`: the metrics as the authors' tools compute them, as they should be computed, or both.

              official                                    corrected
FID           scipy's sqrtm of the product                a symmetric root; KID beside it
QS            20 components, whatever the reference;      as many as the reference supports; all results
              the last results that fill no batch of 50
              are left out
CLIP score    the crops of `encoders.features`            those of `encoders.features`

With `both` the keys of the official metrics end in `_official`. With CLIP both share the features of whole images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.encoders.features import CorrectedFeatures, OfficialFeatures, ProtocolFeatures
from pbe.evaluation.encoders.protocol import Features, PixelEncoder
from pbe.evaluation.metrics.frechet import frechet_distance, official_frechet_distance
from pbe.evaluation.metrics.kid import kernel_distance
from pbe.evaluation.metrics.quality import NUM_COMPONENTS, too_few_images
from pbe.evaluation.reference.statistics import ReferenceStatistics

Name = Literal["corrected", "official"]


@dataclass(frozen=True)
class EvaluationProtocol:
    """How one protocol encodes images and computes FID, QS and CLIP score."""

    name: Name
    features: ProtocolFeatures
    suffix: str  # of its keys in metrics.json

    def set_metrics(self, results: Features, reference: ReferenceStatistics) -> dict[str, float | None]:
        """Return what is a property of all results (N, D) together: fid, qs and, corrected, kid, under its keys.

        A metric is None where the results or the reference do not define it: fewer than two results, no mixture (the
        official QS needs 20 real images), no features for KID.
        """
        enough = len(results) > 1
        if self.name == "official":
            mixture = reference.official_mixture
            return self._keyed(
                fid=official_frechet_distance(results, reference.moments) if enough else None,
                qs=mixture.official_score(results) if mixture else None,
            )
        has_features = len(reference.features) > 1
        return self._keyed(
            fid=frechet_distance(results, reference.moments) if enough else None,
            qs=reference.mixture.score(results) if reference.mixture else None,
            kid=kernel_distance(results, reference.features) if enough and has_features else None,
        )

    def clip_score(self, scores: NDArray[np.float64]) -> dict[str, float | None]:
        """Return the mean of the cases' scores under its key; None where the official crop of a case is empty."""
        mean = float(scores.mean())
        return self._keyed(clip_score=mean if np.isfinite(mean) else None)

    def _keyed(self, **metrics: float | None) -> dict[str, float | None]:
        return {name + self.suffix: value for name, value in metrics.items()}


def open_protocols(name: Literal["corrected", "official", "both"], encoder: PixelEncoder) -> list[EvaluationProtocol]:
    """Return the protocols that `evaluate.protocol` names, the one of the unsuffixed keys first."""
    if name == "official":
        return [EvaluationProtocol("official", OfficialFeatures(encoder), "")]
    corrected = EvaluationProtocol("corrected", CorrectedFeatures(encoder), "")
    official = EvaluationProtocol("official", OfficialFeatures(encoder), "_official")
    return [corrected, official] if name == "both" else [corrected]


def shares_whole_images(protocols: Sequence[EvaluationProtocol]) -> bool:
    """Return whether one pass over whole images serves all protocols: unless an encoder sees tiles in one of them."""
    return len(protocols) == 1 or not protocols[0].features.encoder.sees_tiles


def reference_facts(reference: ReferenceStatistics) -> dict[str, int | str]:
    """Return what a report says of the reference: its images, components, encoder and, where so, what is too few."""
    facts: dict[str, int | str] = {"num_real_images": reference.num_images, "reference_digest": reference.digest}
    if reference.mixture is None:
        return facts
    facts["qs_components"] = reference.mixture.num_components
    warning = too_few_images(reference.num_images, len(reference.moments.mean))
    if warning and reference.mixture.num_components < NUM_COMPONENTS:
        facts["qs_too_few_images"] = warning
    return facts
