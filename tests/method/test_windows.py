import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.method.windows import box_in_window, box_mask, cut_window, mask_box, square_window


@st.composite
def images_with_boxes(draw):
    height, width = draw(st.integers(8, 200)), draw(st.integers(8, 200))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return height, width, (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


@given(images_with_boxes(), st.integers(0, 2**32))
def test_window_is_inside_and_holds_every_box_that_fits(case, seed):
    height, width, (x0, y0, x1, y1) = case
    left, top, side = square_window(height, width, (x0, y0, x1, y1), np.random.default_rng(seed))
    assert 0 <= left <= width - side
    assert 0 <= top <= height - side
    assert side == min(height, width)
    if x1 - x0 <= side:
        assert left <= x0
        assert x1 <= left + side
    if y1 - y0 <= side:
        assert top <= y0
        assert y1 <= top + side


@given(images_with_boxes(), st.integers(0, 2**32))
def test_box_in_window_is_never_empty(case, seed):
    height, width, box = case
    window = square_window(height, width, box, np.random.default_rng(seed))
    x0, y0, x1, y1 = box_in_window(box, window, 64)
    assert 0 <= x0 < x1 <= 64
    assert 0 <= y0 < y1 <= 64


def test_box_moves_and_scales_with_its_window():
    assert box_in_window((30, 10, 50, 30), (20, 0, 40), 80) == (20, 20, 60, 60)


def test_window_places_are_spread_over_all_that_hold_the_box():
    rng = np.random.default_rng(0)
    lefts = {square_window(10, 30, (12, 0, 15, 5), rng).left for _ in range(300)}
    assert lefts == set(range(5, 13))


def test_cut_at_the_windows_own_size_is_the_pixels_themselves():
    image = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    np.testing.assert_array_equal(cut_window(image, (2, 0, 6), 6), image[:, 2:8])


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (1, 2, 3, 7)])
def test_box_mask_is_one_inside_alone(box):
    x0, y0, x1, y1 = box
    mask = box_mask(box, 8)
    assert mask.sum() == (x1 - x0) * (y1 - y0)
    assert mask[y0, x0] == mask[y1 - 1, x1 - 1] == 1


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_the_box_of_a_mask_holds_its_last_row_and_column(x, y, width, height):
    mask = np.zeros((40, 40), np.uint8)
    mask[y : y + height, x : x + width] = 1
    assert mask_box(mask) == (x, y, x + width, y + height)


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="the mask is empty"):
        mask_box(np.zeros((4, 4), np.uint8))
