"""Tests of the correction along the mask's rim."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pbe.method.seams import match_rim, spread

BACKGROUND, OBJECT = 120, 230


def scene(shade: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box mask whose painted background is `shade` levels off, with a bright object in its middle."""
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


def test_a_painting_that_fits_is_left_as_it_is() -> None:
    painted, filled, mask = scene(shade=0)
    assert np.array_equal(match_rim(painted, filled, mask), painted)


def test_a_mask_over_the_whole_picture_has_no_rim_and_corrects_nothing() -> None:
    painted, filled, _ = scene(shade=9)
    assert np.array_equal(match_rim(painted, filled, np.ones((48, 64), np.uint8)), painted)


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


def test_nothing_known_spreads_nothing() -> None:
    assert not spread(np.ones((7, 5, 3), np.float32), np.zeros((7, 5), np.float32)).any()
