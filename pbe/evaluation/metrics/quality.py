"""QS: how likely results are under a mixture of Gaussians fitted to reference images (section 4.1).

    QS = mean over images of clip(log-likelihood / 300, 0, 1) * 100

The constants belong to the 512 dimensions of CLIP ViT-B/32 and are kept for any other encoder, so QS only compares
methods under one encoder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]

NUM_COMPONENTS = 20
OFFICIAL_BATCH_SIZE = 50
_LOG_LIKELIHOOD_SCALE = 300.0
_IMAGES_PER_DIMENSION = 2  # a full covariance needs more samples than dimensions


@dataclass(frozen=True)
class QualityModel:
    """A mixture of K Gaussians in D dimensions, by scikit-learn's numbers: all that QS needs of it."""

    weights: Floats  # (K,)
    means: Floats  # (K, D)
    precisions_cholesky: Floats  # (K, D, D), upper triangular: precision_k = P_k @ P_k.T

    @property
    def num_components(self) -> int:
        return len(self.weights)

    def log_likelihoods(self, features: Features) -> Floats:
        """Return log p(x) of each image, (N, D) => (N,)."""
        x = features.astype(np.float64)
        by_component = [
            np.log(weight) + np.log(np.diagonal(root)).sum() - 0.5 * np.square(x @ root - mean @ root).sum(1)
            for weight, mean, root in zip(self.weights, self.means, self.precisions_cholesky, strict=True)
        ]
        return np.asarray(logsumexp(by_component, axis=0) - 0.5 * x.shape[1] * np.log(2 * np.pi))

    def scores(self, features: Features) -> Floats:
        """Return the quality of each image, 0..100: (N, D) => (N,)."""
        return np.clip(self.log_likelihoods(features) / _LOG_LIKELIHOOD_SCALE, 0.0, 1.0) * 100

    def score(self, features: Features) -> float:
        """Return QS, 0..100, over all images."""
        return float(self.scores(features).mean())

    def official_score(self, features: Features) -> float:
        """Return QS as the official tool computes it, which leaves out the last images when they fill no batch of 50.

        The images are in the order of `features`; the official tool takes them in the file system's order.
        """
        batch_size = min(OFFICIAL_BATCH_SIZE, len(features))
        return self.score(features[: len(features) // batch_size * batch_size])


def supported_components(num_images: int, dimensions: int) -> int:
    """Return how many components, 1..20, have at least 2 images for each dimension of a full covariance."""
    return int(np.clip(num_images // (_IMAGES_PER_DIMENSION * dimensions), 1, NUM_COMPONENTS))


def too_few_images(num_images: int, dimensions: int) -> str | None:
    """Return one line that says how many components the reference images support, or None when they support all 20."""
    supported = supported_components(num_images, dimensions)
    if supported == NUM_COMPONENTS:
        return None
    needed = NUM_COMPONENTS * _IMAGES_PER_DIMENSION * dimensions
    return (
        f"QS has {supported} of its {NUM_COMPONENTS} components: {num_images:,} reference images support no more"
        f" in {dimensions} dimensions; {needed:,} would"
    )


def fit_quality(reference_features: Features, seed: int, num_components: int | None = None) -> QualityModel:
    """Fit a mixture with full covariances to (N, D) features.

    By default it has as many components, up to 20, as the images support; the official tool takes 20, whatever their
    number. Raises ValueError when there are fewer images than components, or fewer than two.
    """
    num_images, dimensions = reference_features.shape
    wanted = num_components or supported_components(num_images, dimensions)
    if num_images < max(2, wanted):
        needed = "two" if wanted <= 2 else str(wanted)
        raise ValueError(f"QS needs at least {needed} reference images, got {num_images}")
    mixture = GaussianMixture(wanted, covariance_type="full", max_iter=300, random_state=seed)
    mixture.fit(reference_features.astype(np.float64))
    return QualityModel(mixture.weights_, mixture.means_, mixture.precisions_cholesky_)
