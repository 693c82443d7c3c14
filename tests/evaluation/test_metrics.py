"""The metrics: Frechet distance, quality score, CLIP score and unmasked pixels, in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg
from sklearn.mixture import GaussianMixture

from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.frechet import frechet_distance
from pbe.evaluation.metrics.preservation import unmasked_max_abs_diff
from pbe.evaluation.metrics.quality import QualityModel, fit_quality


def whitened(count: int, dimensions: int, seed: int) -> NDArray[np.float64]:
    """Return samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = np.random.default_rng(seed).standard_normal((count, dimensions))
    x -= x.mean(0)
    return np.asarray(x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T)


def textbook_frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(s1 @ s2)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s1 + s2 - 2 * np.real(root)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9))
def test_frechet_distance_is_the_textbook_formula(seed: int, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((60, dimensions)) @ rng.standard_normal((dimensions, dimensions)) + rng.standard_normal()
    b = rng.standard_normal((50, dimensions)) @ rng.standard_normal((dimensions, dimensions))
    assert frechet_distance(a, b) == pytest.approx(textbook_frechet(a, b), rel=1e-6, abs=1e-6)


def test_frechet_distance_of_two_gaussians_in_closed_form() -> None:
    x = whitened(50, 4, 0)
    stretched = 3 * x + np.array([1.0, 2.0, 0.0, 2.0])  # |mu|^2 = 9, sum (3 - 1)^2 = 16
    assert frechet_distance(x, stretched) == pytest.approx(25.0)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_is_defined_with_fewer_images_than_dimensions() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 64)), rng.standard_normal((7, 64))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_frechet_distance_of_a_set_to_itself_is_never_negative(seed: int) -> None:
    x = 1000 * np.random.default_rng(seed).standard_normal((40, 8))
    assert 0 <= frechet_distance(x, x) < 1e-6


def test_frechet_distance_of_two_images_each_in_closed_form() -> None:
    a, b = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[3.0, 0.0], [7.0, 0.0]])
    assert frechet_distance(a, b) == pytest.approx((5 - 1) ** 2 + (np.sqrt(8) - np.sqrt(2)) ** 2)


def test_frechet_distance_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two images, got 1"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))


def test_quality_is_the_clipped_log_likelihood_over_300() -> None:
    one_narrow_gaussian = GaussianMixture(1, covariance_type="full").fit(1e-3 * whitened(400, 50, 0))
    model = QualityModel(one_narrow_gaussian, 1)
    variance = 1e-6 * 399 / 400 + 1e-6  # sklearn's maximum likelihood, and what it adds to the diagonal
    at_mean = -25 * np.log(2 * np.pi * variance)  # 282.4
    on_top, slope, far = np.zeros((1, 50)), np.full((1, 50), 1e-3), np.ones((1, 50))
    assert model.score(on_top) == pytest.approx(100 * at_mean / 300)
    assert model.score(slope) == pytest.approx(100 * (at_mean - 25e-6 / variance) / 300)
    assert model.score(far) == 0.0
    assert model.score(np.concatenate([on_top, far])) == pytest.approx(50 * at_mean / 300)


def test_quality_never_exceeds_100() -> None:
    mixture = GaussianMixture(1, reg_covar=1e-12).fit(1e-5 * whitened(400, 50, 0))
    assert QualityModel(mixture, 1).score(np.zeros((3, 50))) == 100.0


def test_a_mixture_for_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two reference images, got 1"):
        fit_quality(np.zeros((1, 4), np.float32), seed=0)


@pytest.mark.parametrize(("num_images", "expected"), [(2, 1), (3, 1), (15, 1), (16, 2), (160, 20), (400, 20)])
def test_the_mixture_has_as_many_components_as_the_images_support(num_images: int, expected: int) -> None:
    model = fit_quality(np.random.default_rng(0).standard_normal((num_images, 4)).astype(np.float32), seed=0)
    assert model.num_components == model.mixture.n_components == expected


def test_the_mixture_is_the_same_for_the_same_seed() -> None:
    x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    assert fit_quality(x, seed=3).score(x) == fit_quality(x, seed=3).score(x)


def test_clip_scores_are_cosines_times_100() -> None:
    a = np.array([[3, 4], [1, 0], [2, 0], [0, 0], [1, 1], [1e-3, 0]], np.float32)
    b = np.array([[4, 3], [0, 5], [-1, 0], [1, 1], [1, 0], [1e-3, 0]], np.float32)
    np.testing.assert_allclose(clip_scores(a, b), [96.0, 0.0, -100.0, 0.0, 50 * np.sqrt(2), 100.0])


def test_only_unmasked_pixels_count() -> None:
    source = np.full((4, 4, 3), 200, np.uint8)
    result, mask = source.copy(), np.zeros((4, 4), np.uint8)
    mask[:2] = 1
    result[:2] = 0
    assert unmasked_max_abs_diff(result, source, mask) == 0
    result[3, 3, 1] = 255
    result[2, 0, 0] = 190
    assert unmasked_max_abs_diff(result, source, mask) == 55
    assert unmasked_max_abs_diff(result, source, np.ones((4, 4), np.uint8)) == 0


@pytest.mark.parametrize(("side", "source_side"), [(4, 8), (8, 4)])
def test_a_result_of_another_size_is_refused(side: int, source_side: int) -> None:
    result, source = (np.zeros((n, n, 3), np.uint8) for n in (side, source_side))
    message = rf"has shape \({side}, {side}, 3\), its source \({source_side}, {source_side}, 3\)"
    with pytest.raises(ValueError, match=message):
        unmasked_max_abs_diff(result, source, np.zeros((source_side, source_side), np.uint8))
