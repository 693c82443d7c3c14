"""CLIP score: how near the repainted box is to the exemplar, by features (section 4.1)."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32] | NDArray[np.float64]


def clip_scores(result_crops: Features, exemplars: Features) -> NDArray[np.float64]:
    """Return 100 * cosine between features of repainted boxes and of their exemplars, (N, D) each => (N,)."""
    a, b = result_crops.astype(np.float64), exemplars.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(100 * (a * b).sum(1) / np.maximum(norms, 1e-12))
