"""FID, QS and CLIP score as the official tools define them (section 4.1), and the change outside the mask.

The first three are computed on the features of one encoder, CLIP ViT-B/32 in the paper. The constants of QS belong to
that encoder's 512 dimensions and are kept for any other, so QS only compares methods under one encoder.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from pbe.types import Image, Mask

Features = NDArray[np.float32] | NDArray[np.float64]
Floats = NDArray[np.float64]

NUM_COMPONENTS = 20
_LOG_LIKELIHOOD_SCALE = 300.0
_IMAGES_PER_DIMENSION = 2  # a full covariance needs more samples than dimensions


def frechet_distance(first: Features, second: Features) -> float:
    """Return the Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

        |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^1/2 S_2 S_1^1/2)^1/2)

    The last trace is a sum of square roots of the eigenvalues of a symmetric matrix, so that there is no imaginary part
    to discard, unlike with `sqrtm(S_1 S_2)`. Raises ValueError when a set has fewer than two members.
    """
    (mean_1, covariance_1), (mean_2, covariance_2) = _moments(first), _moments(second)
    root = _symmetric_root(covariance_1)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariance_2 @ root), 0.0, None)).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2 * cross
    return max(0.0, float(distance))


def _moments(features: Features) -> tuple[Floats, Floats]:
    if len(features) < 2:
        raise ValueError(f"a Fréchet distance needs at least two images, got {len(features)}")
    x = features.astype(np.float64)
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))


def _symmetric_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)


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


def clip_scores(result_crops: Features, exemplars: Features) -> Floats:
    """Return 100 * cosine between features of repainted boxes and of their exemplars, (N, D) each => (N,)."""
    a, b = result_crops.astype(np.float64), exemplars.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(100 * (a * b).sum(1) / np.maximum(norms, 1e-12))


def unmasked_max_abs_diff(result: Image, source: Image, mask: Mask) -> int:
    """Return the largest change of any channel where mask == 0, in grey levels 0..255; 0 when every pixel is masked.

    Raises ValueError when the sizes of result and source differ.
    """
    if result.shape != source.shape:
        raise ValueError(f"the result has shape {result.shape}, its source {source.shape}")
    difference = np.abs(result.astype(np.int16) - source.astype(np.int16))[mask == 0]
    return int(difference.max()) if difference.size else 0
