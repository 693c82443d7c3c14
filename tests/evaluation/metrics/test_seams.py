"""Seam visibility, by hand and on pictures of both resolutions."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.evaluation.metrics.seams import seam_visibility

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]


def textured(side: int, seed: int = 0) -> Image:
    """A picture with detail at all scales, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(0, 24, (cells, cells, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
        for cells in (4, 8, 16, 32, 64)
    ]
    return np.clip(128 + sum(layers) / 2, 0, 255).astype(np.uint8)


def box(side: int, low: float = 0.25, high: float = 0.75) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    mask[round(low * side) : round(high * side), round(low * side) : round(high * side)] = 1
    return mask


def brightened(image: Image, mask: Mask, levels: int) -> Image:
    return np.clip(image.astype(int) + levels * mask[..., None], 0, 255).astype(np.uint8)


def test_a_ramp_with_a_step_by_hand() -> None:
    columns = np.array([0, 2, 4, 6, 8, 10, 32, 34, 36, 38, 40, 42])  # 2 a pixel, 22 from column 5 to 6
    image = np.repeat(np.tile(columns, (6, 1))[..., None], 3, axis=2).astype(np.uint8)
    mask = np.zeros((6, 12), np.uint8)
    mask[:, 6:] = 1
    horizontal, vertical = 2 * (3 + 3) * 6, 0  # both sides: three pairs in each of 6 rows; vertical pairs have step 0
    num_vertical = 2 * 4 * 5  # both sides: four columns
    beside = (horizontal + vertical) / (2 * 3 * 6 + num_vertical)
    assert seam_visibility(image, mask) == pytest.approx((22 + 1) / (beside + 1))


def test_the_sides_of_the_edge_have_the_same_weight() -> None:
    columns = np.array([0, 4, 8, 12, 16, 16, 16, 16, 16, 16])
    image = np.repeat(columns[None, :, None], 3, axis=2).astype(np.uint8)  # one row
    mask = np.zeros((1, 10), np.uint8)
    mask[0, 4:6] = 1  # steps of 4 to the left, of 0 to the right
    across, inside, outside = (4 + 0) / 2, 0.0, (3 * 4 + 0) / 6
    assert seam_visibility(image, mask) == pytest.approx((across + 1) / ((inside + outside) / 2 + 1))


def test_a_flat_picture_has_no_seam_and_a_step_in_it_does() -> None:
    flat = np.full((32, 32, 3), 90, np.uint8)
    assert seam_visibility(flat, box(32)) == 1.0
    assert seam_visibility(brightened(flat, box(32), 9), box(32)) == pytest.approx(10.0)


@pytest.mark.parametrize("side", [64, 512])
def test_a_seam_shows_at_both_resolutions(side: int) -> None:
    image, mask = textured(side), box(side)
    floor = seam_visibility(image, mask)
    values = [seam_visibility(brightened(image, mask, levels), mask) for levels in (10, 20, 40)]
    assert floor == pytest.approx(1.0, abs=0.2)
    assert floor < values[0] < values[1] < values[2]
    assert values[2] > 1.8
    pasted = np.where(mask[..., None] == 1, textured(side, seed=1), image)
    assert seam_visibility(pasted, mask) > 1.5 * floor


def test_an_enlarged_picture_has_about_the_same_seam() -> None:
    image = brightened(textured(128), box(128), 40)
    large = cv2.resize(image, (512, 512), interpolation=cv2.INTER_LINEAR)
    assert seam_visibility(large, box(512)) == pytest.approx(seam_visibility(image, box(128)), rel=0.25)


def test_the_edge_of_the_picture_is_no_seam() -> None:
    image = textured(64)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :30] = 1  # touches three edges of the picture
    flipped = seam_visibility(np.ascontiguousarray(image[::-1, ::-1]), np.ascontiguousarray(mask[::-1, ::-1]))
    assert seam_visibility(image, mask) == pytest.approx(flipped)
    assert seam_visibility(image, mask) == pytest.approx(1.0, abs=0.2)


def test_a_mask_of_one_pixel_is_compared_with_its_surroundings() -> None:
    image = np.full((16, 16, 3), 100, np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    image[0, 0], mask[0, 0] = 130, 1  # in the corner: two pairs across the edge
    assert seam_visibility(image, mask) == pytest.approx(31.0)


def test_without_an_edge_there_is_no_value() -> None:
    image = textured(16)
    for mask in (np.ones((16, 16), np.uint8), np.zeros((16, 16), np.uint8)):
        assert np.isnan(seam_visibility(image, mask))
    assert np.isnan(seam_visibility(image[:1, :2], np.array([[0, 1]], np.uint8)))  # no pair beside the edge
