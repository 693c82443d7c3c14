"""Diversity over seeds: how different the results of one case are when only the seed changes.

    mean over the pairs of seeds of d(y_i, y_j)

d is either 100 * (1 - cosine) of features of the repainted box, or the mean absolute difference of the masked pixels
in grey levels. 0 = all results are equal. Diversity is no virtue by itself: a model that ignores the exemplar is
diverse, too. Read it beside identity.

Source: the mean distance of pairs of outputs for one input (Zhu et al., "Toward Multimodal Image-to-Image Translation",
2017, section 4.1), which takes LPIPS as d.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pbe.types import Image, Mask

Features = NDArray[np.float32]


def feature_diversity(features: Features) -> float:
    """Return the mean of 100 * (1 - cosine) over the pairs of K results' features (K, D); NaN for fewer than two."""
    num_seeds = len(features)
    if num_seeds < 2:
        return float("nan")
    x = features.astype(np.float64)
    units = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosines = units @ units.T
    mean = (cosines.sum() - np.trace(cosines)) / (num_seeds * (num_seeds - 1))
    return 100 * max(0.0, 1 - float(mean))


def pixel_diversity(results: Sequence[Image], mask: Mask) -> float:
    """Return the mean absolute difference of pairs of results (H, W, 3) in grey levels, where mask == 1.

    NaN for fewer than two results, or an empty mask.
    """
    regions = [result[mask == 1].astype(np.int16) for result in results]
    distances = [np.abs(first - second).mean() for first, second in combinations(regions, 2) if first.size]
    return float(np.mean(distances)) if distances else float("nan")
