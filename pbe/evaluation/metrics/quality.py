"""QS: how likely results are under a mixture of Gaussians fitted to reference images (section 4.1).

The constants belong to the 512 dimensions of CLIP ViT-B/32 and are kept for any other encoder, so QS only compares
methods under one encoder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

Features = NDArray[np.float32] | NDArray[np.float64]

NUM_COMPONENTS = 20
_LOG_LIKELIHOOD_SCALE = 300.0
_IMAGES_PER_DIMENSION = 2  # a full covariance needs more samples than dimensions


@dataclass(frozen=True)
class QualityModel:
    """A mixture of Gaussians, fitted to features of reference images, that gives QS the likelihood of results."""

    mixture: GaussianMixture
    num_components: int

    def score(self, features: Features) -> float:
        """Return QS, 0..100: the mean over all images of clip(log-likelihood / 300, 0, 1) * 100."""
        log_likelihood = self.mixture.score_samples(features.astype(np.float64))
        return float(np.clip(log_likelihood / _LOG_LIKELIHOOD_SCALE, 0.0, 1.0).mean() * 100)


def fit_quality(reference_features: Features, seed: int) -> QualityModel:
    """Fit 20 components with full covariances to (N, D) features, or fewer, so that each has at least 2 D images.

    Raises ValueError when there are fewer than two images.
    """
    num_images, dimensions = reference_features.shape
    if num_images < 2:
        raise ValueError(f"QS needs at least two reference images, got {num_images}")
    supported = num_images // (_IMAGES_PER_DIMENSION * dimensions)
    num_components = int(np.clip(supported, 1, NUM_COMPONENTS))
    mixture = GaussianMixture(num_components, covariance_type="full", max_iter=300, random_state=seed)
    return QualityModel(mixture.fit(reference_features.astype(np.float64)), num_components)
