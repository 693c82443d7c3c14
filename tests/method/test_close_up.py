"""Close-ups: where the square lies, how far it is magnified, and that it is put back where it was cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.method.close_up import cut_close_up, draw_side, put_back, window_around
from pbe.types import Box, Image, Mask

Picture = tuple[Image, Mask]


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), mask


@settings(max_examples=200, deadline=None)
@given(pictures(), st.sampled_from([8, 16, 64]))
def test_the_window_holds_the_mask_and_leaves_the_image_only_when_it_must(picture: Picture, image_px: int) -> None:
    mask = picture[1]
    ys, xs = np.nonzero(mask)
    left, top, side = window_around(mask, image_px)
    longest = max(np.ptp(xs), np.ptp(ys)) + 1
    assert left <= xs.min()
    assert xs.max() < left + side
    assert top <= ys.min()
    assert ys.max() < top + side
    if longest <= min(mask.shape):
        assert left >= 0
        assert top >= 0
        assert left + side <= mask.shape[1]
        assert top + side <= mask.shape[0]
    else:
        assert side == longest


@pytest.mark.parametrize(
    ("box", "magnification", "window"),
    [
        ((100, 110, 200, 204), 1.0, (170, 73, 64)),  # small: at the painter's resolution
        ((100, 110, 200, 204), 2.0, (186, 89, 32)),  # or magnified twice
        ((100, 130, 200, 220), 2.0, (187, 92, 45)),  # with a margin, where that is more
        ((100, 200, 0, 80), 2.0, (0, 75, 150)),
        ((0, 300, 0, 350), 2.0, (0, -25, 350)),  # longer than the short side: exceeds it by 25 px on both sides
    ],
)
def test_a_mask_gets_a_margin_and_is_magnified_up_to_the_limit(
    box: Box, magnification: float, window: tuple[int, int, int]
) -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[box[0] : box[1], box[2] : box[3]] = 1
    assert window_around(mask, 64, magnification) == window


@settings(max_examples=200, deadline=None)
@given(pictures(), st.sampled_from([1.0, 2.0]))
def test_a_painted_square_is_put_back_where_it_was_cut(picture: Picture, magnification: float) -> None:
    """Painted black, exactly the masked pixels of the picture are black."""
    source, mask = picture[0] | 1, picture[1]
    close = cut_close_up(source, mask, 16, magnification)
    assert close.source.shape == (16, 16, 3)
    assert close.mask.any()
    back = put_back(source, mask, np.zeros_like(close.source), close.window)
    assert ((back == 0).all(2) == (mask == 1)).all()
    assert (back[mask == 0] == source[mask == 0]).all()


def test_without_magnification_a_picture_of_the_painters_size_is_unchanged() -> None:
    rng = np.random.default_rng(0)
    source, mask = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = 1
    close = cut_close_up(source, mask, 64, 1.0)
    assert (close.source == source).all()
    assert (close.mask == mask).all()
    assert (put_back(source, mask, source, close.window) == source).all()


def test_training_draws_sides_from_the_closest_to_the_whole_short_side() -> None:
    rng = np.random.default_rng(0)
    sides = [draw_side(512, 700, (100, 100, 200, 180), 64, rng) for _ in range(3000)]
    assert (min(sides), max(sides)) == (150, 512)  # a margin of half the box
    assert np.mean(sides) == pytest.approx(331, abs=10)
    assert {draw_side(64, 80, (10, 10, 16, 16), 64, rng) for _ in range(300)} == set(range(32, 65))  # twice as close
    assert {draw_side(64, 80, (0, 0, 64, 64), 64, rng) for _ in range(30)} == {64}
