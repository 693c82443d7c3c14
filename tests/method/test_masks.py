"""The paper's mask shapes (section 3.2), their statistics included."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pbe.method.masks import bezier, draw_mask, extend_box
from pbe.settings import Mask
from tests.support import parameters

BOX = (20, 24, 44, 40)


def draw_many(mask: Mask, num: int, box=BOX, size=64):
    rng = np.random.default_rng(0)
    return [draw_mask(box, size, mask, rng) for _ in range(num)]


@given(st.integers(0, 2**32))
def test_extension_stays_within_the_share_of_the_free_space(seed):
    x0, y0, x1, y1 = extend_box(BOX, 64, 0.4, np.random.default_rng(seed))
    assert 20 - 8 <= x0 <= 20
    assert 24 - 10 <= y0 <= 24
    assert 44 <= x1 <= 44 + 8
    assert 40 <= y1 <= 40 + 10


def test_box_masks_hold_the_box_and_are_rectangles():
    for mask in draw_many(parameters.mask(irregular_probability=0), 50):
        assert mask[24:40, 20:44].all()
        ys, xs = np.nonzero(mask)
        assert mask.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)


def test_irregular_masks_cover_the_middle_and_most_of_the_box():
    for mask in draw_many(parameters.mask(irregular_probability=1), 100):
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert mask[32, 32] == 1
        assert mask[24:40, 20:44].mean() > 0.85


def test_half_of_the_masks_are_irregular():
    def is_rectangle(mask):
        ys, xs = np.nonzero(mask)
        return mask.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)

    share = 1 - np.mean([is_rectangle(m) for m in draw_many(parameters.mask(), 2000)])
    assert abs(share - 0.5) < 0.04


def test_the_mean_extension_is_a_fifth_of_the_free_space():
    rng = np.random.default_rng(1)
    boxes = np.array([extend_box((200, 200, 300, 300), 512, 0.4, rng) for _ in range(4000)])
    free = np.array([200, 200, 212, 212])
    moved = np.abs(boxes - np.array([200, 200, 300, 300])) / free
    np.testing.assert_allclose(moved.mean(0), 0.2, atol=0.01)
    assert moved.max() <= 0.4 + 0.5 / 200


def test_bezier_starts_at_its_first_point_and_passes_halfway_to_its_bulge():
    points = bezier(np.array([[0.0, 0.0], [2.0, 4.0], [4.0, 0.0]]), 20)
    np.testing.assert_array_equal(points[0], [0, 0])
    np.testing.assert_allclose(points[10], [2, 2])


def test_a_full_image_box_gives_a_full_mask():
    assert draw_mask((0, 0, 64, 64), 64, parameters.mask(irregular_probability=0), np.random.default_rng(0)).all()


def test_the_objects_own_shape_is_widened_by_a_pixel_and_more():
    shape = np.zeros((64, 64), np.uint8)
    shape[30:34, 24:44] = 1
    grown = cv2.dilate(shape, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8))
    mask, rng = parameters.mask(object_probability=1, max_dilation_frac=0.1), np.random.default_rng(0)
    drawn = [draw_mask(BOX, 64, mask, rng, shape) for _ in range(40)]
    assert all((m >= grown).all() for m in drawn)
    assert len({int(m.sum()) for m in drawn}) > 5
    assert max(np.flatnonzero(m.any(0))[-1] for m in drawn) <= 43 + 6.4


def test_the_other_masks_are_the_papers_where_the_shape_is_known():
    shape = np.zeros((64, 64), np.uint8)
    shape[31, 30] = 1
    rng = np.random.default_rng(0)
    small = np.mean(
        [draw_mask(BOX, 64, parameters.mask(object_probability=0.3), rng, shape).sum() < 100 for _ in range(1000)]
    )
    assert abs(small - 0.3) < 0.05
