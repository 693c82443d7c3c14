"""The paper's mask shapes (section 3.2), their statistics included."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pbe import settings
from pbe.method.masks import bezier, box_outline, dilate_mask, draw_mask, extend_box
from pbe.types import Box, Mask
from tests.support import parameters

BOX = (20, 24, 44, 40)


def draw_many(mask: settings.Mask, num: int, box: Box = BOX, size: int = 64) -> list[Mask]:
    rng = np.random.default_rng(0)
    return [draw_mask(box, size, mask, rng) for _ in range(num)]


@given(st.integers(0, 2**32))
def test_extension_stays_within_the_share_of_the_free_space(seed: int) -> None:
    x0, y0, x1, y1 = extend_box(BOX, 64, 0.4, np.random.default_rng(seed))
    assert 20 - 8 <= x0 <= 20
    assert 24 - 10 <= y0 <= 24
    assert 44 <= x1 <= 44 + 8
    assert 40 <= y1 <= 40 + 10


def test_box_masks_hold_the_box_and_are_rectangles() -> None:
    for mask in draw_many(parameters.mask(irregular_probability=0), 50):
        assert mask[24:40, 20:44].all()
        ys, xs = np.nonzero(mask)
        assert mask.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)


def test_irregular_masks_cover_the_middle_and_most_of_the_box() -> None:
    for mask in draw_many(parameters.mask(irregular_probability=1), 100):
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert mask[32, 32] == 1
        assert mask[24:40, 20:44].mean() > 0.85


def test_the_outline_passes_the_corners_and_half_the_extension() -> None:
    outline = box_outline(BOX, (10, 20, 50, 48), points_per_edge=2)
    expected = [(20, 24), (32, 22), (44, 24), (47, 32), (44, 40), (32, 44), (20, 40), (15, 32)]
    np.testing.assert_allclose(outline, expected)


def test_irregular_masks_reach_at_most_half_as_far_as_the_largest_extension() -> None:
    masks = draw_many(parameters.mask(irregular_probability=1, max_offset_frac=0), 200)
    union = np.max(masks, 0)
    assert cv2.boundingRect(union) == (16, 19, 33, 27)  # by 4 and 4.8 px, and pixels that the outline touches
    for mask in masks:
        assert mask[24:40, 20:44].all()


def test_irregular_masks_reach_the_edges_of_the_image() -> None:
    assert draw_mask((0, 0, 64, 64), 64, parameters.mask(max_offset_frac=0), np.random.default_rng(1)).all()
    assert all(
        m[0].any() and m[-1].any() for m in draw_many(parameters.mask(irregular_probability=1), 20, (0, 0, 64, 64))
    )


def test_masks_for_the_ablation_are_the_box() -> None:
    mask = draw_mask(BOX, 64, parameters.mask(shape="box"), np.random.default_rng(0), np.ones((64, 64), np.uint8))
    assert cv2.boundingRect(mask) == (20, 24, 24, 16)
    assert mask.sum() == 24 * 16


def test_dilation_by_a_radius_takes_in_every_pixel_within_it() -> None:
    point = np.zeros((9, 9), np.uint8)
    point[4, 4] = 1
    ys, xs = np.mgrid[-4:5, -4:5]
    for radius in (1.0, 2.0, 2.3, 3.7):
        np.testing.assert_array_equal(dilate_mask(point, radius), np.hypot(xs, ys) <= radius)
    np.testing.assert_array_equal(dilate_mask(point, 0.2), dilate_mask(point, 1.0))


def test_half_of_the_masks_are_irregular() -> None:
    def is_rectangle(mask: Mask) -> bool:
        ys, xs = np.nonzero(mask)
        return mask.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)

    share = 1 - np.mean([is_rectangle(m) for m in draw_many(parameters.mask(), 2000)])
    assert abs(share - 0.5) < 0.04


def test_the_mean_extension_is_a_fifth_of_the_free_space() -> None:
    rng = np.random.default_rng(1)
    boxes = np.array([extend_box((200, 200, 300, 300), 512, 0.4, rng) for _ in range(4000)])
    free = np.array([200, 200, 212, 212])
    moved = np.abs(boxes - np.array([200, 200, 300, 300])) / free
    np.testing.assert_allclose(moved.mean(0), 0.2, atol=0.01)
    assert moved.max() <= 0.4 + 0.5 / 200


def test_bezier_starts_at_its_first_point_and_passes_halfway_to_its_bulge() -> None:
    points = bezier(np.array([[0.0, 0.0], [2.0, 4.0], [4.0, 0.0]]), 20)
    np.testing.assert_array_equal(points[0], [0, 0])
    np.testing.assert_allclose(points[10], [2, 2])


def test_a_full_image_box_gives_a_full_mask() -> None:
    assert draw_mask((0, 0, 64, 64), 64, parameters.mask(irregular_probability=0), np.random.default_rng(0)).all()


def test_the_objects_shape_is_dilated_by_at_least_a_pixel() -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[30:34, 24:44] = 1
    grown = cv2.dilate(shape, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8))
    mask, rng = parameters.mask(object_probability=1, max_dilation_frac=0.1), np.random.default_rng(0)
    drawn = [draw_mask(BOX, 64, mask, rng, shape) for _ in range(40)]
    assert all((m >= grown).all() for m in drawn)
    assert len({int(m.sum()) for m in drawn}) > 5
    assert max(np.flatnonzero(m.any(0))[-1] for m in drawn) <= 43 + 6.4


def test_the_other_masks_are_the_papers_when_the_shape_is_known() -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[31, 30] = 1
    rng = np.random.default_rng(0)
    small = np.mean(
        [draw_mask(BOX, 64, parameters.mask(object_probability=0.3), rng, shape).sum() < 100 for _ in range(1000)]
    )
    assert abs(small - 0.3) < 0.05
