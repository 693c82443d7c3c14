"""Intervals over seeds and cases: against a bootstrap written out row by row, and against what is known of normals."""

import numpy as np
import pytest

from pbe.demo.tables.estimates import Estimate, resample


def test_means_are_those_of_tables_with_repeated_rows_and_columns() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 12))
    resampling = resample(3, 12, 200, 0.9, seed=5)
    means = []
    for rows, columns in zip(resampling.seeds.astype(int), resampling.cases.astype(int), strict=True):
        repeated = np.repeat(np.repeat(scores, rows, axis=0), columns, axis=1)
        means.append(repeated.mean())
    low, high = np.quantile(means, [0.05, 0.95])
    found = resampling.mean(scores)
    np.testing.assert_allclose([found.value, found.low, found.high], [scores.mean(), low, high], rtol=1e-12)


def test_cases_to_which_a_score_does_not_apply_are_left_out() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 10))
    padded = np.concatenate([scores, np.full((2, 4), np.nan)], axis=1)
    resampling = resample(2, 14, 100, 0.95, seed=0)
    found = resampling.mean(padded)
    assert found.value == pytest.approx(scores.mean())
    assert found.low < found.value < found.high


def test_an_interval_covers_the_true_mean_of_new_seeds_and_cases() -> None:
    """Crossed random effects with 6 seeds and 40 cases; the pigeonhole bootstrap errs on the wide side."""
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        scores = rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 1.0, (1, 40)) + rng.normal(0, 1.0, (6, 40))
        interval = resample(6, 40, 200, 0.95, seed=trial).mean(scores)
        covered += interval.low <= 0 <= interval.high
    assert covered / 200 >= 0.9


def test_the_difference_of_equal_models_is_no_difference_and_of_shifted_ones_is_one() -> None:
    rng = np.random.default_rng(3)
    hard, noise = rng.normal(0, 10, (1, 50)), rng.normal(0, 0.1, (2, 3, 50))
    resampling = resample(3, 50, 300, 0.95, seed=0)
    same, shifted = hard + noise[0], hard + noise[1]
    assert resampling.mean(shifted - same).sign == 0
    assert resampling.mean(shifted + 0.5 - same).sign == 1
    assert resampling.mean(same).sign == 0  # unpaired, the cases' own spread hides a shift of 0.5


def test_a_statistic_of_all_cases_is_averaged_over_resampled_seeds() -> None:
    resampling = resample(2, 5, 400, 0.95, seed=1)
    found = resampling.mean_of_seeds([(1.0, np.full(400, 1.0)), (3.0, np.full(400, 3.0))])
    assert found == Estimate(2.0, 1.0, 3.0)  # both draws of a seed may be the same seed
