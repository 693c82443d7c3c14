"""Diversity over seeds, against scipy and by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from pbe.evaluation.metrics.diversity import feature_diversity, pixel_diversity


def test_diversity_of_features_is_the_mean_of_scipys_pairwise_cosine_distances() -> None:
    features = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    assert feature_diversity(features) == pytest.approx(100 * pdist(features, "cosine").mean(), rel=1e-6)


def test_diversity_of_pixels_by_hand() -> None:
    results = [np.full((2, 2, 3), level, np.uint8) for level in (10, 20, 40)]
    results[0][1] = 255  # not masked
    mask = np.array([[1, 1], [0, 0]], np.uint8)
    assert pixel_diversity(results, mask) == pytest.approx((10 + 30 + 20) / 3)


def test_equal_results_have_no_diversity() -> None:
    image = np.full((2, 2, 3), 7, np.uint8)
    assert pixel_diversity([image, image], np.ones((2, 2), np.uint8)) == 0.0
    assert feature_diversity(np.ones((3, 5), np.float32)) == pytest.approx(0.0, abs=1e-9)


def test_one_seed_has_no_value() -> None:
    assert np.isnan(feature_diversity(np.ones((1, 5), np.float32)))
    assert np.isnan(pixel_diversity([np.zeros((2, 2, 3), np.uint8)], np.ones((2, 2), np.uint8)))
    assert np.isnan(pixel_diversity([np.zeros((2, 2, 3), np.uint8)] * 2, np.zeros((2, 2), np.uint8)))
