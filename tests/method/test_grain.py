"""Tests of the grain that painted ground gets from the photograph around it."""

import cv2
import numpy as np
import pytest

from pbe.method.grain import match_grain
from pbe.types import Image, Mask

GROUND = (120.0, 110.0, 100.0)
OBJECT = (230, 40, 40)


def mask_of_box() -> Mask:
    mask = np.zeros((96, 128), np.uint8)
    mask[24:72, 32:96] = 1
    return mask


def ground(deviation: float, *, seed: int = 0, coarseness: float = 0.0) -> Image:
    """Return ground (96, 128, 3) with grey noise, blurred by `coarseness` pixels to grains of that size."""
    noise = np.random.default_rng(seed).standard_normal((96, 128, 1))
    if coarseness:
        noise = cv2.GaussianBlur(noise, (0, 0), coarseness)[..., None]
    noise *= deviation / noise.std()
    return np.clip(np.round(np.array(GROUND) + noise), 0, 255).astype(np.uint8)


def smooth() -> Image:
    return np.broadcast_to(np.array(GROUND, np.uint8), (96, 128, 3)).copy()


@pytest.mark.parametrize("deviation", [3.0, 8.0, 16.0])
def test_smooth_ground_gets_the_grain_of_its_surroundings(deviation: float) -> None:
    inside = mask_of_box() == 1
    grained = match_grain(smooth(), ground(deviation), mask_of_box(), 1.0)[inside].astype(float)
    assert grained.std(0) == pytest.approx(np.full(3, deviation), rel=0.15)
    assert grained.mean(0) == pytest.approx(GROUND, abs=1.0)


def test_the_grain_has_the_colours_and_the_size_of_the_surroundings() -> None:
    inside = mask_of_box() == 1
    source = ground(10.0, coarseness=2.0)
    grained = match_grain(smooth(), source, mask_of_box(), 8.0).astype(float)
    assert np.corrcoef(grained[inside].T).min() > 0.97  # grey, as in the source

    def step(image: np.ndarray) -> float:
        """Return the difference of neighbours, which is small where grains are large."""
        return float(np.abs(np.diff(image[24:72, 32:96, 0].astype(float), axis=1)).mean())

    assert step(grained) == pytest.approx(step(source), rel=0.2)


def test_ground_that_has_its_grain_gets_no_more() -> None:
    painted = ground(8.0, seed=1)
    grained = match_grain(painted, ground(8.0), mask_of_box(), 1.0)
    inside = mask_of_box() == 1
    assert grained[inside].std() == pytest.approx(painted[inside].std(), rel=0.05)


def test_an_enlarged_square_gets_grain_of_more_octaves() -> None:
    inside = mask_of_box() == 1
    source = ground(8.0, coarseness=12.0)  # coarser than the finest three octaves
    few, many = (match_grain(smooth(), source, mask_of_box(), e)[inside].std(0).mean() for e in (1.0, 8.0))
    assert few < 2 < 3 < many


def test_an_object_of_other_colours_keeps_them() -> None:
    painted = smooth()
    painted[36:60, 48:80] = OBJECT
    grained = match_grain(painted, ground(12.0), mask_of_box(), 1.0)
    assert np.abs(grained[36:60, 48:80].astype(int) - OBJECT).max() <= 3
    assert grained[26:34, 34:94].std() > 8


def test_edges_around_the_mask_are_not_grain() -> None:
    source = ground(3.0)
    source[:, 4:28] = np.tile(np.repeat([[255, 255, 255], [0, 0, 0]], 4, 0), (3, 1))  # stripes of 4 px
    inside = mask_of_box() == 1
    assert match_grain(smooth(), source, mask_of_box(), 1.0)[inside].std(0).mean() < 6


def test_a_painting_with_more_grain_than_its_surroundings_is_not_changed() -> None:
    painted = ground(12.0, seed=1)
    assert np.array_equal(match_grain(painted, ground(5.0), mask_of_box(), 1.0), painted)


def test_a_square_that_was_shrunk_gets_the_grain_of_one_at_its_size() -> None:
    source = ground(8.0)
    assert np.array_equal(
        match_grain(smooth(), source, mask_of_box(), 0.25), match_grain(smooth(), source, mask_of_box(), 1.0)
    )


def test_bright_ground_with_grain_stays_bright() -> None:
    inside = mask_of_box() == 1
    source = np.random.default_rng(0).normal(248, 8, (96, 128, 3)).round().clip(0, 255).astype(np.uint8)
    grained = match_grain(np.full_like(source, 250), source, mask_of_box(), 1.0)
    assert grained[inside].min() > 200


def test_ground_that_changes_its_colour_is_compared_with_what_is_near() -> None:
    """A ramp from dark to light: a painting that continues it is ground everywhere, a uniform one only in places."""
    inside = mask_of_box() == 1
    ramp = np.broadcast_to(np.linspace(10, 240, 128)[None, :, None], (96, 128, 3))
    source = (ramp + np.random.default_rng(0).normal(0, 8, (96, 128, 1))).round().clip(0, 255).astype(np.uint8)
    followed = ramp.round().astype(np.uint8)
    added = match_grain(followed, source, mask_of_box(), 1.0)[inside].astype(float) - followed[inside]
    assert added.std() == pytest.approx(8, rel=0.2)
    uniform = np.full_like(source, 20)
    assert np.array_equal(match_grain(uniform, source, mask_of_box(), 1.0)[30:66, 80:94], uniform[30:66, 80:94])


def test_the_pattern_of_edges_around_the_mask_is_not_the_pattern_of_the_grain() -> None:
    source = ground(6.0)
    source[:, 4:12] = np.tile(np.repeat([[255] * 3, [0] * 3], 4, 0), (1, 1))
    inside = mask_of_box() == 1
    added = match_grain(smooth(), source, mask_of_box(), 1.0).astype(float)[..., 0] - GROUND[0]
    rows = np.corrcoef(added[24:71, 32:96].ravel(), added[25:72, 32:96].ravel())[0, 1]
    assert abs(rows) < 0.25  # white, as the ground; stripes of 4 px would correlate
    assert added[inside].std() == pytest.approx(6, rel=0.2)


def test_a_large_window_is_measured_in_part_and_its_noise_repeats_without_a_seam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pbe.method.grain.MEASURED_PX", 64)
    source = np.random.default_rng(0).normal(120, 8, (200, 300, 3)).round().astype(np.uint8)
    mask = np.zeros((200, 300), np.uint8)
    mask[20:180, 40:280] = 1
    added = match_grain(np.full_like(source, 120), source, mask, 4.0).astype(float) - 120
    assert added[mask == 1].std() == pytest.approx(8, rel=0.15)
    assert np.abs(added[30:90, 70:130] - added[94:154, 70:130]).max() <= 1  # rounding
    steps = np.abs(np.diff(added[64:192, 64:256, 0], axis=0)).mean(1)
    assert steps[63] < 1.5 * np.delete(steps[:110], 63).mean()  # between two copies


def test_nothing_is_added_where_the_source_has_no_grain_or_shows_nothing() -> None:
    assert np.array_equal(match_grain(smooth(), smooth(), mask_of_box(), 4.0), smooth())
    whole = np.ones((96, 128), np.uint8)
    assert np.array_equal(match_grain(smooth(), ground(9.0), whole, 1.0), smooth())
    tiny = smooth()[:4, :4]
    assert np.array_equal(match_grain(tiny, ground(9.0)[:4, :4], mask_of_box()[24:28, 30:34], 1.0), tiny)


def test_the_hidden_pixels_of_the_source_are_not_read() -> None:
    mask, source = mask_of_box(), ground(8.0)
    other = np.where(mask[..., None] == 1, np.uint8(7), source)
    assert np.array_equal(match_grain(smooth(), source, mask, 2.0), match_grain(smooth(), other, mask, 2.0))
