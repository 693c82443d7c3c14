"""10,000 draws of the parts of training samples, against the paper's definitions (section 3.2; docs/method.md).

The bounds are five standard errors of the mean, or the definition's own limits.
"""

import cv2
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from pbe.method.exemplars import Change, draw_change
from pbe.method.masks import box_outline, draw_mask, extend_box, irregular_mask
from pbe.method.windows import square_window
from tests.support import parameters

Integers = NDArray[np.int64]

NUM = 10_000
SIZE = 512
BOX = (160, 128, 288, 320)
FREE = np.array([160, 128, SIZE - 288, SIZE - 320])  # left, top, right, bottom
AREA = (288 - 160) * (320 - 128)
SIDE = 16  # of an exemplar, px


def near(values: ArrayLike, expected: float) -> bool:
    """Return whether a mean is within five standard errors of the expected one."""
    values = np.asarray(values, float)
    return abs(values.mean() - expected) < 5 * values.std() / np.sqrt(len(values)) + 1e-9


def uniform(values: ArrayLike, low: float, high: float) -> bool:
    """Return whether values are uniform, by their limits, mean and standard deviation."""
    whole = np.issubdtype(np.asarray(values).dtype, np.integer)
    values = np.asarray(values, float)
    inside = low <= values.min() and values.max() <= high
    width = np.sqrt((high - low + 1) ** 2 - 1) if whole else high - low
    spread = abs(values.std() / (width / np.sqrt(12)) - 1) < 0.03
    return inside and spread and near(values, (low + high) / 2)


@pytest.fixture(scope="module")
def extensions() -> Integers:
    rng = np.random.default_rng(0)
    boxes = np.array([extend_box(BOX, SIZE, parameters.mask().max_extension_frac, rng) for _ in range(NUM)])
    return np.abs(boxes - np.array(BOX))  # px a side


def test_each_side_of_a_box_mask_moves_by_0_to_40_percent_of_the_free_space(extensions: Integers) -> None:
    for side, free in zip(extensions.T, FREE, strict=True):
        assert uniform(side, 0, round(0.4 * free)), side.mean()
    assert np.abs(np.corrcoef(extensions.T) - np.eye(4)).max() < 0.05  # one draw a side


def test_the_bezier_shape_has_the_area_of_its_curves(extensions: Integers) -> None:
    """Each edge's curve rises by half the extension: a parabola over the edge, of 2/3 of edge times height."""
    edges, points = np.array([192, 128, 192, 128]), parameters.mask().points_per_edge
    exact = AREA + (1 - 1 / points**2) * (extensions * edges).sum(1) / 3  # of a polygon on the parabolas
    corners = np.array(BOX) + extensions * np.array([-1, -1, 1, 1])
    outlines = np.stack([box_outline(BOX, tuple(box), points) for box in corners[:2500]])
    following = np.roll(outlines, -1, 1)
    shoelace = outlines[..., 0] * following[..., 1] - outlines[..., 1] * following[..., 0]
    np.testing.assert_allclose(np.abs(shoelace.sum(1)) / 2, exact[:2500])
    assert near(exact, AREA + (1 - 1 / points**2) * 0.2 * (FREE * edges).sum() / 3)
    for box, outline, area in zip(corners[:300], outlines, exact, strict=False):
        filled = irregular_mask(
            BOX, tuple(box), SIZE, parameters.mask(max_offset_frac=0), np.random.default_rng(1)
        ).sum()
        length = np.linalg.norm(np.roll(outline, -1, 0) - outline, axis=1).sum()
        assert 0 <= filled - area <= 0.75 * length  # a pixel that the outline touches is inside


def test_twenty_points_an_edge_are_jittered_by_up_to_five_pixels_of_512(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter as it reaches the polygon, of 10,000 points."""
    drawn = []
    monkeypatch.setattr("cv2.fillPoly", lambda image, points, *_, shift: drawn.append(points[0] / 2**shift + 0.5))
    rng = np.random.default_rng(2)
    outline = box_outline(BOX, BOX, parameters.mask().points_per_edge)
    assert len(outline) == 4 * 20
    while len(drawn) * len(outline) < NUM:
        irregular_mask(BOX, BOX, SIZE, parameters.mask(), rng)
    jitter = np.concatenate([points - outline for points in drawn])
    assert uniform(jitter[:, 0], -5.16, 5.16)
    assert uniform(jitter[:, 1], -5.16, 5.16)


def test_half_of_the_masks_are_irregular() -> None:
    rng = np.random.default_rng(3)
    masks = [draw_mask((10, 8, 18, 20), 32, parameters.mask(max_offset_frac=0.1), rng) for _ in range(NUM)]
    boxes = [cv2.boundingRect(mask) for mask in masks]
    assert near([mask.sum() < box[2] * box[3] for mask, box in zip(masks, boxes, strict=True)], 0.5)


def test_the_crop_lies_uniformly_among_those_that_hold_the_box() -> None:
    rng = np.random.default_rng(4)
    windows = np.array([square_window(768, 1024, (300, 100, 500, 400), rng) for _ in range(NUM)])
    assert (windows[:, 2] == 768).all()
    assert (windows[:, 1] == 0).all()
    assert uniform(windows[:, 0], 0, 256)  # anywhere: the box is inside all of them
    windows = np.array([square_window(768, 1024, (900, 100, 1000, 400), rng) for _ in range(NUM)])
    assert uniform(windows[:, 0], 1000 - 768, 256)


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    rng = np.random.default_rng(5)
    return [draw_change(SIDE, parameters.augmentation(), rng) for _ in range(NUM)]


def test_the_exemplar_is_flipped_half_of_the_time(changes: list[Change]) -> None:
    assert near([c.flip for c in changes], 0.5)


def test_the_exemplar_is_rotated_half_of_the_time_by_up_to_20_degrees(changes: list[Change]) -> None:
    assert near([c.angle_deg is not None for c in changes], 0.5)
    assert uniform([c.angle_deg for c in changes if c.angle_deg is not None], -20, 20)


def test_the_exemplar_is_blurred_at_30_percent(changes: list[Change]) -> None:
    assert near([c.blur_px is not None for c in changes], 0.3)
    widest = parameters.augmentation().max_blur_frac * SIDE
    assert uniform([c.blur_px for c in changes if c.blur_px is not None], 0.2 * widest, widest)


def test_the_exemplar_is_bent_at_30_percent_by_3_percent_of_its_side(changes: list[Change]) -> None:
    flows = [c.flow for c in changes if c.flow is not None]
    assert near([c.flow is not None for c in changes], 0.3)
    size = np.sqrt(np.square(flows).mean((1, 2, 3)))
    np.testing.assert_allclose(size, parameters.augmentation().elastic_frac * SIDE, rtol=1e-3)
    steps = np.diff(flows, axis=1)
    assert np.sqrt(np.square(steps).mean()) < 0.6 * size.mean()  # smooth: neighbours move together


def test_the_parts_of_the_augmentation_are_drawn_independently(changes: list[Change]) -> None:
    flags = np.array([[c.flip, c.angle_deg is not None, c.flow is not None, c.blur_px is not None] for c in changes])
    assert np.abs(np.corrcoef(flags.T) - np.eye(4)).max() < 0.05
