"""The metrics: Frechet distance, quality score, CLIP score and unmasked pixels, in closed form."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg
from sklearn.mixture import GaussianMixture

from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.frechet import (
    RunningMoments,
    extrapolated_distance,
    fit_moments,
    frechet_distance,
    official_frechet_distance,
    perfect_distances,
)
from pbe.evaluation.metrics.kid import kernel_distance
from pbe.evaluation.metrics.preservation import unmasked_max_abs_diff
from pbe.evaluation.metrics.quality import QualityModel, fit_quality, supported_components, too_few_images


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


def test_running_moments_are_those_of_all_features() -> None:
    x = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32) + 1000
    running = RunningMoments()
    for part in np.split(x, [1, 1, 20, 48]):
        running.add(part)
    found = running.moments()
    assert found.num_images == 50
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)


def test_moments_stand_for_their_features() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 4)), 2 + rng.standard_normal((40, 4))
    assert frechet_distance(fit_moments(a), b) == frechet_distance(a, fit_moments(b)) == frechet_distance(a, b)
    assert official_frechet_distance(fit_moments(a), b) == official_frechet_distance(a, b)


def test_the_official_distance_is_scipys_root_of_the_product() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 6)), rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))
    assert official_frechet_distance(a, b) == pytest.approx(textbook_frechet(a, b), abs=1e-9)
    assert official_frechet_distance(a, b) == pytest.approx(frechet_distance(a, b), abs=1e-6)


def test_a_perfect_model_has_the_distance_of_two_samples_of_one_gaussian() -> None:
    rng = np.random.default_rng(0)
    reference = fit_moments(rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6)))
    few, many = ((20, 50), (200, 500))

    def sampled(n: int, m: int) -> float:
        draw = partial(rng.multivariate_normal, reference.mean, reference.covariance)
        return float(np.mean([frechet_distance(draw(n), draw(m)) for _ in range(150)]))

    for n, m in (few, many):
        drawn = perfect_distances(reference, n, m, 150, rng)
        assert drawn.mean() == pytest.approx(sampled(n, m), rel=0.12)
    assert perfect_distances(reference, *few, 20, rng).mean() > 3 * perfect_distances(reference, *many, 20, rng).mean()
    assert perfect_distances(reference, 5, 500, 3, rng).shape == (3,)  # fewer images than dimensions


def test_the_distance_for_infinitely_many_results_has_no_bias_of_their_number() -> None:
    rng = np.random.default_rng(0)
    results, real = rng.standard_normal((4000, 12)), rng.standard_normal((200_000, 12)) + 0.1  # distance 0.12
    found = extrapolated_distance(results, real, (250, 500, 1000, 2000, 4000))
    assert abs(found - 0.12) < 0.03 < frechet_distance(results[:250], real) - 0.12
    with pytest.raises(ValueError, match="at least two sizes"):
        extrapolated_distance(results, real, (250, 250))


def test_frechet_distance_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two images, got 1"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))


def quality_model(mixture: GaussianMixture) -> QualityModel:
    return QualityModel(mixture.weights_, mixture.means_, mixture.precisions_cholesky_)


def test_quality_is_the_clipped_log_likelihood_over_300() -> None:
    one_narrow_gaussian = GaussianMixture(1, covariance_type="full").fit(1e-3 * whitened(400, 50, 0))
    model = quality_model(one_narrow_gaussian)
    variance = 1e-6 * 399 / 400 + 1e-6  # sklearn's maximum likelihood, and what it adds to the diagonal
    at_mean = -25 * np.log(2 * np.pi * variance)  # 282.4
    on_top, slope, far = np.zeros((1, 50)), np.full((1, 50), 1e-3), np.ones((1, 50))
    assert model.score(on_top) == pytest.approx(100 * at_mean / 300)
    assert model.score(slope) == pytest.approx(100 * (at_mean - 25e-6 / variance) / 300)
    assert model.score(far) == 0.0
    assert model.score(np.concatenate([on_top, far])) == pytest.approx(50 * at_mean / 300)
    np.testing.assert_allclose(model.scores(np.concatenate([on_top, far])), [100 * at_mean / 300, 0.0])


def test_quality_never_exceeds_100() -> None:
    mixture = GaussianMixture(1, reg_covar=1e-12).fit(1e-5 * whitened(400, 50, 0))
    assert quality_model(mixture).score(np.zeros((3, 50))) == 100.0


def test_the_likelihood_of_a_mixture_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 4 * rng.integers(0, 3, (300, 1))
    mixture = GaussianMixture(3, random_state=0).fit(x)
    found = quality_model(mixture).log_likelihoods(x[:40] + 50 * (np.arange(40)[:, None] == 7))
    expected = mixture.score_samples(x[:40] + 50 * (np.arange(40)[:, None] == 7))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_official_quality_leaves_out_the_last_images_that_fill_no_batch_of_50() -> None:
    rng = np.random.default_rng(0)
    x = 1e-2 * rng.standard_normal((130, 40))
    x[100:] += 1  # unlikely
    model = fit_quality(x[:100], seed=0)
    assert model.official_score(x) == pytest.approx(model.score(x[:100]))
    assert model.official_score(x[:100]) == pytest.approx(model.score(x[:100]))
    assert model.official_score(x[90:120]) == pytest.approx(model.score(x[90:120]))  # fewer than 50: one batch


def test_a_mixture_for_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two reference images, got 1"):
        fit_quality(np.zeros((1, 4), np.float32), seed=0)


@pytest.mark.parametrize(("num_images", "expected"), [(2, 1), (3, 1), (15, 1), (16, 2), (160, 20), (400, 20)])
def test_the_mixture_has_as_many_components_as_the_images_support(num_images: int, expected: int) -> None:
    model = fit_quality(np.random.default_rng(0).standard_normal((num_images, 4)).astype(np.float32), seed=0)
    assert model.num_components == len(model.means) == expected


def test_too_few_images_are_reported_in_one_line_and_the_official_mixture_has_20_components_all_the_same() -> None:
    x = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    assert supported_components(160, 4) == 20
    assert too_few_images(160, 4) is None
    assert too_few_images(40, 4) == (
        "QS has 5 of its 20 components: 40 reference images support no more in 4 dimensions; 160 would"
    )
    assert fit_quality(x, seed=0).num_components == 5
    assert fit_quality(x, seed=0, num_components=20).num_components == 20
    with pytest.raises(ValueError, match="at least 20 reference images, got 19"):
        fit_quality(x[:19], seed=0, num_components=20)


def test_the_mixture_is_the_same_for_the_same_seed() -> None:
    x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    assert fit_quality(x, seed=3).score(x) == fit_quality(x, seed=3).score(x)


def test_kid_of_two_images_each_by_hand() -> None:
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [-1.0, 0.0]])
    within_x = (0 / 2 + 1) ** 3
    within_y = (-1 / 2 + 1) ** 3
    between = ((1 / 2 + 1) ** 3 + (-1 / 2 + 1) ** 3 + (2 / 2 + 1) ** 3 + (0 / 2 + 1) ** 3) / 4
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between)


def test_kid_is_the_sum_over_all_pairs_in_whatever_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 7)).astype(np.float32), rng.standard_normal((30, 7)).astype(np.float32) + 0.3
    kernels = [(a.astype(np.float64) @ b.T / 7 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    off = [k.sum() - np.trace(k) for k in kernels[:2]]
    expected = off[0] / (30 * 29) + off[1] / (30 * 29) - 2 * kernels[2].mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("pbe.evaluation.metrics.kid._BLOCK", 7)
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average_however_few_images_there_are() -> None:
    rng = np.random.default_rng(0)
    draws = [kernel_distance(rng.standard_normal((8, 4)), rng.standard_normal((8, 4))) for _ in range(400)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / 20
    assert min(draws) < 0 < max(draws)


def test_kid_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="two images of each kind, got 1 and 3"):
        kernel_distance(np.zeros((1, 2)), np.zeros((3, 2)))


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
