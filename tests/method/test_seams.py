"""Tests of the correction along the mask's rim."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbe.method.seams import match_rim, spread

BACKGROUND, OBJECT = 120, 230


def scene(shade: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a painted picture with a bright object, `shade` levels off in the box mask, the source, and the mask."""
    filled = np.full((48, 64, 3), BACKGROUND, np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:40, 10:50] = 1
    painted = filled + np.uint8(shade) * mask[..., None]
    painted[18:30, 22:38] = OBJECT
    return painted, filled, mask


def test_a_background_that_is_a_shade_off_meets_its_surroundings_and_the_object_keeps_its_colour() -> None:
    painted, filled, mask = scene(shade=9)
    matched = match_rim(painted, filled, mask)
    background = (mask == 1) & (painted[..., 0] != OBJECT)
    assert np.abs(matched[background].astype(int) - BACKGROUND).max() <= 2
    assert (matched[18:30, 22:38] == OBJECT).all()


def test_an_object_that_reaches_over_the_rim_keeps_its_colour_there() -> None:
    painted, filled, mask = scene(shade=9)
    painted[18:30, 10:38] = OBJECT
    matched = match_rim(painted, filled, mask)
    assert (matched[18:30, 10:38] == OBJECT).all()
    assert abs(int(matched[38, 30, 0]) - BACKGROUND) <= 2


def test_a_painting_that_matches_its_surroundings_is_not_changed() -> None:
    painted, filled, mask = scene(shade=0)
    assert np.array_equal(match_rim(painted, filled, mask), painted)


def test_a_mask_over_the_whole_picture_has_no_rim_and_corrects_nothing() -> None:
    painted, filled, _ = scene(shade=9)
    assert np.array_equal(match_rim(painted, filled, np.ones((48, 64), np.uint8)), painted)


def test_the_correction_is_the_modules_equation() -> None:
    rng = np.random.default_rng(0)
    filled = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    painted = np.clip(filled + rng.normal(0, 15, filled.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:17, 5:30] = 1
    neighbours = np.pad(mask, 1, mode="edge")
    inside = np.min([neighbours[y : y + 20, x : x + 30] for y in range(3) for x in range(3)], 0)
    difference = filled.astype(np.float32) - painted
    certainty = likely_background(difference) + 0.02
    known = difference * ((certainty - 0.02) / certainty)[..., None]
    correction = spread(known, (mask - inside) * certainty / np.float32(1.02))
    expected = painted + likely_background(difference - correction)[..., None] * correction
    np.testing.assert_allclose(match_rim(painted, filled, mask), expected.clip(0, 255), atol=0.51)


def likely_background(difference: np.ndarray) -> np.ndarray:
    return np.exp(-np.square(np.abs(difference).max(-1) / 32)).astype(np.float32)


@pytest.mark.parametrize(("difference", "correction"), [(8, 7.83), (20, 19.4), (40, 36.1), (60, 20.3), (100, 0)])
def test_a_shade_is_corrected_up_to_about_40_levels_and_an_object_that_covers_the_rim_is_not(
    difference: int, correction: float
) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:25] = 1
    painted, filled = np.full((20, 30, 3), 100, np.uint8), np.full((20, 30, 3), 100 + difference, np.uint8)
    matched = match_rim(painted, filled, mask)
    assert (matched[5:15, 5:25] == round(100 + correction)).all()


def test_corrected_levels_stay_within_0_and_255() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 5:25] = 1
    for shade, level in ((20, 255), (-20, 0)):
        filled, painted = np.full((30, 30, 3), 120, np.uint8), np.full((30, 30, 3), 120 - shade, np.uint8)
        painted[12:18, 12:18] = filled[12:18, 12:18] = level
        assert (match_rim(painted, filled, mask)[12:18, 12:18] == level).all()


def test_spreading_interpolates_between_known_values() -> None:
    values = np.array([0, 50, -50, 8], np.float32).reshape(1, 4, 1)
    known = np.array([[1, 0, 0, 1]], np.float32)
    for line, weights in ((values, known), (values.reshape(4, 1, 1), known.T)):
        np.testing.assert_allclose(spread(line, weights).ravel(), [0, 2, 6, 8], atol=1e-5)


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_spreading_stays_within_the_known_values_and_keeps_what_is_certain(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(-5, 5, (height, width, 3)).astype(np.float32)
    weights = (rng.random((height, width)) < 0.3).astype(np.float32)
    weights[0, 0] = 1
    filled = spread(values, weights)
    known = values[weights == 1]
    assert np.allclose(filled[weights == 1], known, atol=1e-5)
    assert (filled >= known.min(0) - 1e-4).all()
    assert (filled <= known.max(0) + 1e-4).all()


def test_without_known_values_nothing_is_spread() -> None:
    assert not spread(np.ones((7, 5, 3), np.float32), np.zeros((7, 5), np.float32)).any()
