"""Regions: which pieces of a mask are painted together, what is dropped, and how painted windows are put back."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.method.close_up import cut_close_up, put_back
from pbe.method.regions import MAX_REGIONS, Regions, cut_regions, find_regions, put_back_regions
from pbe.types import Mask

PIXELS = 64


def mask_of(*boxes: tuple[int, int, int, int], side: int = 600) -> Mask:
    """Return a square mask with these xyxy boxes marked."""
    mask = np.zeros((side, side), np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def numbers(mask: Mask) -> list[int]:
    return sorted(set(np.unique(find_regions(mask, PIXELS).labels).tolist()) - {0})


LEFT = (40, 40, 100, 100)


def test_far_apart_islands_have_their_own_windows_the_largest_first() -> None:
    regions = find_regions(mask_of(LEFT, (500, 500, 580, 560)), PIXELS)
    assert regions.windows == ((480, 470, 120), (25, 25, 90))
    assert regions.labels[500, 500] == 1
    assert regions.labels[40, 40] == 2
    assert regions.num_specks == 0


@pytest.mark.parametrize(("gap", "regions"), [(0, 1), (1, 1), (30, 1), (31, 2)])
def test_islands_are_one_where_their_margins_of_a_quarter_touch(gap: int, regions: int) -> None:
    assert len(numbers(mask_of(LEFT, (100 + gap, 40, 160 + gap, 100)))) == regions


def test_regions_are_merged_until_none_touches_another() -> None:
    pair = [(40, 40, 100, 100), (120, 40, 180, 100)]  # together 140 px: 35 px of margin instead of 15
    third = (180 + 38, 40, 180 + 48, 60)
    assert len(numbers(mask_of(pair[1], third))) == 2
    assert len(numbers(mask_of(*pair, third))) == 1


def test_a_region_inside_a_ring_belongs_to_the_ring() -> None:
    mask = mask_of((100, 100, 400, 400))
    mask[120:380, 120:380] = 0
    mask[240:260, 240:260] = 1
    assert numbers(mask) == [1]


@pytest.mark.parametrize(("side", "dropped"), [(1, 1), (3, 1), (4, 0)])
def test_a_speck_far_from_every_region_is_dropped_and_counted(side: int, dropped: int) -> None:
    mask = mask_of(LEFT, (500, 500, 500 + side, 500 + side))
    regions = find_regions(mask, PIXELS)
    assert (regions.num_specks, regions.speck_px) == (dropped, 3)
    assert len(regions.windows) == 2 - dropped
    assert regions.windows[0] == find_regions(mask_of(LEFT), PIXELS).windows[0]


def test_specks_beside_a_region_belong_to_it() -> None:
    regions = find_regions(mask_of(LEFT, (105, 50, 106, 51)), PIXELS)
    assert regions.num_specks == 0
    assert regions.labels[50, 105] == 1
    assert len(regions.windows) == 1


def test_a_mask_of_specks_alone_keeps_them() -> None:
    regions = find_regions(mask_of((10, 10, 11, 11), (500, 500, 502, 502)), PIXELS)
    assert regions.num_specks == 0
    assert len(regions.windows) == 2


def test_a_thin_line_is_no_speck() -> None:
    assert numbers(mask_of(LEFT, (500, 300, 501, 340))) == [1, 2]


@pytest.mark.parametrize(("step", "regions"), [(150, MAX_REGIONS), (100, 1)])
def test_more_regions_than_the_limit_are_one(step: int, regions: int) -> None:
    starts = range(10, 600, step)
    mask = mask_of(*((x, y, x + 20, y + 20) for x in starts for y in starts))
    found = find_regions(mask, PIXELS)
    assert len(found.windows) == regions
    assert np.array_equal(found.labels > 0, mask == 1)


def test_noise_is_one_region_in_bounded_time() -> None:
    mask = (np.random.default_rng(0).random((1000, 1000)) > 0.9).astype(np.uint8)
    assert len(find_regions(mask, PIXELS).windows) == 1


def test_other_regions_are_hidden_in_a_window_and_not_put_back_by_it() -> None:
    mask = mask_of((50, 50, 90, 90), (111, 50, 151, 90), side=200)  # windows of 100 px that overlap
    source = np.full((200, 200, 3), 7, np.uint8)
    regions = find_regions(mask, 100, 1.0)
    left, right = cut_regions(source, regions, 100)
    assert left.mask[:, -10:].any()
    assert right.mask[:, :5].any()
    painted = [np.full((100, 100, 3), level, np.uint8) for level in (100, 200)]
    result = put_back_regions(source, regions, painted)
    assert (result[50:90, 50:90] == 100).all()
    assert (result[50:90, 111:151] == 200).all()
    assert (result[mask == 0] == 7).all()


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Mask, Mask]:
    height, width = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(1, 4))):
        y, x = rng.integers(height), rng.integers(width)
        mask[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = 1
    return rng.integers(1, 256, (height, width, 3), dtype=np.uint8), mask


@settings(max_examples=200, deadline=None)
@given(pictures(), st.sampled_from([1.0, 2.0]))
def test_every_marked_pixel_is_painted_except_the_specks(picture: tuple[Mask, Mask], magnification: float) -> None:
    source, mask = picture
    regions = find_regions(mask, 16, magnification)
    cuts = cut_regions(source, regions, 16)
    assert all(cut.mask.any() for cut in cuts)
    plain = np.full_like(source, 200)  # a picture without grain
    result = put_back_regions(plain, regions, [np.zeros_like(cut.source) for cut in cuts])
    painted = (result == 0).all(2)
    assert np.array_equal(painted, regions.labels > 0)
    assert (mask[painted] == 1).all()
    if regions.num_specks == 0:
        assert np.array_equal(painted, mask == 1)


@settings(max_examples=100, deadline=None)
@given(pictures(), st.sampled_from([1.0, 2.0]))
def test_one_region_gives_the_bits_of_a_single_close_up(picture: tuple[Mask, Mask], magnification: float) -> None:
    source, mask = picture
    regions = find_regions(mask, 16, magnification)
    if len(regions.windows) > 1 or regions.num_specks:
        return
    single, (cut,) = cut_close_up(source, mask, 16, magnification), cut_regions(source, regions, 16)
    assert cut.window == single.window
    assert np.array_equal(cut.source, single.source)
    assert np.array_equal(cut.mask, single.mask)
    square = source[:1, :1].repeat(16, 0).repeat(16, 1)
    plain = np.full_like(source, 200)  # a picture without grain
    assert np.array_equal(put_back_regions(plain, regions, [square]), put_back(plain, mask, square, single.window))


def test_the_ground_of_a_painted_window_gets_the_grain_of_the_picture() -> None:
    mask = mask_of(LEFT, (500, 500, 580, 560))
    source = np.random.default_rng(0).normal(120, 8, (*mask.shape, 3)).round().astype(np.uint8)
    regions = find_regions(mask, PIXELS)
    result = put_back_regions(source, regions, [np.full((PIXELS, PIXELS, 3), 120, np.uint8)] * 2)
    assert np.array_equal(result[mask == 0], source[mask == 0])
    for number in (1, 2):
        assert result[regions.labels == number].std() == pytest.approx(8, rel=0.1)


def test_the_labels_of_a_region_are_a_mask() -> None:
    regions = find_regions(mask_of(LEFT), PIXELS)
    assert isinstance(regions, Regions)
    assert np.array_equal(regions.labels, mask_of(LEFT))


@pytest.mark.parametrize("mask", [mask_of((0, 10, 60, 190), side=200)[:60], mask_of((20, 20, 40, 40), side=60)])
def test_grain_is_measured_around_the_window_and_at_its_size(mask: Mask) -> None:
    """The first mask has a window that exceeds the picture, and in which the picture shows little else."""
    mask = mask.T if mask.shape[0] > mask.shape[1] else mask
    source = np.random.default_rng(0).normal(120, 8, (*mask.shape, 3)).round().astype(np.uint8)
    for context_px in (None, 0):
        regions = find_regions(mask, PIXELS, 2.0, context_px)
        result = put_back_regions(source, regions, [np.full((PIXELS, PIXELS, 3), 120, np.uint8)])
        assert result[mask == 1].std() == pytest.approx(8, rel=0.15)


def test_a_painted_square_of_its_windows_size_is_not_changed_itself() -> None:
    mask = mask_of((40, 40, 82, 82), side=200)
    source = np.random.default_rng(0).normal(120, 8, (200, 200, 3)).round().astype(np.uint8)
    regions = find_regions(mask, PIXELS, 1.0)
    assert regions.windows[0].side == PIXELS
    square = np.full((PIXELS, PIXELS, 3), 120, np.uint8)
    put_back_regions(source, regions, [square])
    assert (square == 120).all()


def test_an_enlarged_window_gets_coarse_grain_that_a_window_at_its_own_size_does_not() -> None:
    mask = mask_of((150, 150, 450, 450))
    source = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (600, 600)), (0, 0), 4)
    source = (120 + 8 / source.std() * source).round().astype(np.uint8)[..., None].repeat(3, -1)
    regions = find_regions(mask, PIXELS)
    result = put_back_regions(source, regions, [np.full((PIXELS, PIXELS, 3), 120, np.uint8)])
    assert result[mask == 1].std() > 6
