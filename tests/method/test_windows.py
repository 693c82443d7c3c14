"""Windows of an image: where they lie, and where boxes lie in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.method.windows import Window, box_in_window, box_mask, cut_window, mask_box, square_window
from pbe.types import Box

Case = tuple[int, int, Box]  # height, width and a box


@st.composite
def images_with_boxes(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(8, 200)), draw(st.integers(8, 200))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return height, width, (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


@given(images_with_boxes(), st.integers(0, 2**32))
def test_the_window_lies_inside_the_image_and_holds_every_box_that_fits(case: Case, seed: int) -> None:
    height, width, (x0, y0, x1, y1) = case
    left, top, side = square_window(height, width, (x0, y0, x1, y1), np.random.default_rng(seed))
    assert 0 <= left <= width - side
    assert 0 <= top <= height - side
    assert side == min(height, width)
    for start, low, high in ((left, x0, x1), (top, y0, y1)):
        if high - low <= side:
            assert start <= low < high <= start + side
        else:
            assert low <= start < start + side <= high


@given(images_with_boxes(), st.integers(0, 2**32))
def test_a_box_in_its_window_is_never_empty(case: Case, seed: int) -> None:
    height, width, box = case
    window = square_window(height, width, box, np.random.default_rng(seed))
    x0, y0, x1, y1 = box_in_window(box, window, 64)
    assert 0 <= x0 < x1 <= 64
    assert 0 <= y0 < y1 <= 64


@pytest.mark.parametrize(
    ("box", "window", "size_px", "expected"),
    [
        ((30, 10, 50, 30), (20, 0, 40), 80, (20, 20, 60, 60)),
        ((21, 13, 22, 14), (20, 10, 64), 8, (0, 0, 1, 1)),  # smaller than a pixel: the pixel
        ((83, 73, 84, 74), (20, 10, 64), 8, (7, 7, 8, 8)),
        ((0, 0, 90, 90), (20, 10, 64), 8, (0, 0, 8, 8)),  # clipped to the window
        ((27, 18, 41, 43), (20, 10, 64), 8, (0, 1, 3, 5)),  # every pixel that it touches
        ((100, 40, 110, 50), (0, 0, 64), 64, (63, 40, 64, 50)),  # outside: the nearest column
        ((10, 0, 20, 3), (0, 0, 3), 10, (9, 0, 10, 10)),
        ((1, 2, 2, 3), (0, 0, 3), 30, (10, 20, 20, 30)),  # rounding errors add no pixel
    ],
)
def test_a_box_moves_scales_and_is_clipped_with_its_window(box: Box, window: Box, size_px: int, expected: Box) -> None:
    assert box_in_window(box, window, size_px) == expected


@given(st.integers(1, 64), st.integers(0, 63), st.integers(3, 500))
def test_boxes_on_pixel_edges_of_the_resized_window_gain_no_pixel(scale: int, start: int, side: int) -> None:
    low = start % side
    box = (low, 0, low + 1, side)
    assert box_in_window(box, (0, 0, side), side * scale) == (low * scale, 0, (low + 1) * scale, side * scale)


def test_windows_are_spread_over_all_places_that_hold_the_box() -> None:
    rng = np.random.default_rng(0)
    lefts = {square_window(10, 30, (12, 0, 15, 5), rng).left for _ in range(300)}
    assert lefts == set(range(5, 13))
    tops = {square_window(30, 10, (0, 1, 5, 29), rng).top for _ in range(300)}
    assert tops == set(range(1, 20))  # the box is longer than the window, which lies inside the box's extent


def test_a_window_of_a_given_side() -> None:
    rng = np.random.default_rng(0)
    windows = {square_window(20, 30, (12, 4, 15, 9), rng, side=6) for _ in range(300)}
    assert windows == {Window(left, top, 6) for left in range(9, 13) for top in range(3, 5)}


def test_a_window_cut_at_its_own_size_is_the_pixels_themselves() -> None:
    image = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    np.testing.assert_array_equal(cut_window(image, (2, 0, 6), 6), image[:, 2:8])


def test_only_fast_cutting_uses_the_fast_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    usual, fast = cut_window(image, (0, 50, 200), 90), cut_window(image, (0, 50, 200), 90, fast=True)
    assert usual.shape == fast.shape == (90, 90, 3)
    assert (usual != fast).any()
    np.testing.assert_array_equal(usual, cut_window(image, (0, 50, 200), 90, fast=False))


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (1, 2, 3, 7)])
def test_the_mask_of_a_box_is_one_inside_alone(box: Box) -> None:
    x0, y0, x1, y1 = box
    mask = box_mask(box, 8)
    assert mask.shape == (8, 8)
    assert mask.sum() == (x1 - x0) * (y1 - y0)
    assert mask[y0, x0] == mask[y1 - 1, x1 - 1] == 1


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_the_box_of_a_mask_holds_its_last_row_and_column(x: int, y: int, width: int, height: int) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[y : y + height, x : x + width] = 1
    assert mask_box(mask) == (x, y, x + width, y + height)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="the mask is empty"):
        mask_box(np.zeros((4, 4), np.uint8))
