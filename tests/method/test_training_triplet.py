"""The training triplet: what is drawn, how the parts fit, and by how much an image may be decoded smaller."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.method.exemplars import crop_exemplar
from pbe.method.training_triplet import decoding_reduction, draw_triplet, draw_window
from pbe.method.windows import Window, box_in_window, cut_window
from pbe.types import Box, Image
from tests.support import parameters

BOX = (60, 40, 124, 104)
PLAIN = parameters.method(mask=parameters.mask(shape="box"), exemplar=parameters.augmentation(augment=False))


def image(height: int = 128, width: int = 192) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_without_augmentation_the_triplet_is_window_box_and_crop() -> None:
    window = Window(32, 0, 128)
    triplet = draw_triplet(image(), window, BOX, PLAIN, 32, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(triplet.source, cut_window(image(), window, 64, fast=True))
    expected = np.zeros((64, 64), np.uint8)
    expected[20:52, 14:46] = 1
    np.testing.assert_array_equal(triplet.mask, expected)
    assert triplet.exemplars.shape == (3, 32, 32, 3)
    crop = crop_exemplar(image(), BOX, PLAIN.exemplar.pad_frac, 32, fast=True)
    assert all((exemplar == crop).all() for exemplar in triplet.exemplars)


def test_exemplars_of_one_triplet_are_augmented_independently() -> None:
    method = parameters.method(exemplar=parameters.augmentation(rotate_probability=1))
    exemplars = draw_triplet(image(), Window(32, 0, 128), BOX, method, 32, 4, np.random.default_rng(0)).exemplars
    assert len({exemplar.tobytes() for exemplar in exemplars}) == 4


def test_the_objects_shape_becomes_the_mask() -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[30:40, 20:30] = 1
    method = parameters.method(mask=parameters.mask(object_probability=1, max_dilation_frac=0))
    mask = draw_triplet(
        image(), Window(32, 0, 128), BOX, method, 32, 1, np.random.default_rng(0), object_mask=shape
    ).mask
    assert mask.sum() == 10 * 10 + 4 * 10  # dilated by one pixel


def test_a_reduced_image_gives_the_same_mask_and_nearly_the_same_pixels() -> None:
    ys, xs = np.mgrid[0:256, 0:320]
    full = np.stack([xs * 0.6, ys * 0.8, (xs + ys) * 0.4], -1).astype(np.uint8)
    half = full.reshape(128, 2, 160, 2, 3).mean((1, 3)).round().astype(np.uint8)
    window, box = Window(40, 0, 256), (60, 40, 200, 180)
    one, other = (
        draw_triplet(picture, window, box, PLAIN, 32, 1, np.random.default_rng(3), reduction=reduction)
        for picture, reduction in ((full, 1), (half, 2))
    )
    np.testing.assert_array_equal(one.mask, other.mask)
    assert np.abs(one.source.astype(int) - other.source).max() <= 2
    assert np.abs(one.exemplars.astype(int) - other.exemplars).max() <= 4


def test_without_close_ups_the_window_is_as_long_as_the_short_side_and_takes_no_other_draw() -> None:
    method = parameters.method(close_up_probability=0)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    window = draw_window(128, 192, BOX, method, rng)
    assert (window.side, window.top) == (128, 0)
    assert window.left == other.integers(0, 61)
    other.integers(0, 1)
    assert rng.random() == other.random()


def test_the_share_of_close_ups_is_the_setting() -> None:
    rng, method = np.random.default_rng(0), parameters.method(close_up_probability=0.3)
    sides = [draw_window(512, 700, (100, 100, 200, 180), method, rng).side for _ in range(2000)]
    assert abs(np.mean([side < 512 for side in sides]) - 0.3) < 0.05
    assert min(sides) >= 150
    always = parameters.method(close_up_probability=1)
    assert np.mean([draw_window(512, 700, (100, 100, 200, 180), always, rng).side < 512 for _ in range(100)]) > 0.9


@pytest.mark.parametrize(
    ("window_px", "box", "reduction"),
    [
        (768, (0, 0, 700, 700), 1),
        (1023, (0, 0, 700, 700), 1),
        (1024, (0, 0, 448, 448), 2),
        (1024, (100, 0, 547, 448), 1),
        (1100, (0, 0, 500, 460), 2),
        (1100, (0, 100, 500, 400), 1),
        (2047, (0, 0, 2000, 2000), 2),
        (4500, (0, 0, 4000, 4000), 8),
        (90000, (0, 0, 80000, 80000), 8),
        (64, (0, 0, 10, 10), 1),
        (9000, (3000, 0, 3448, 2000), 2),  # limited by the box's width
        (9000, (0, 3000, 2000, 3448), 2),  # or height
    ],
)
def test_an_image_is_decoded_smaller_if_window_and_exemplar_are_still_reduced(
    window_px: int, box: Box, reduction: int
) -> None:
    assert decoding_reduction(window_px, box, image_px=512, exemplar_px=224) == reduction


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_mask_covers_the_middle_of_the_box_in_the_window(seed: int, close_up_probability: float) -> None:
    rng = np.random.default_rng(seed)
    method = parameters.method(close_up_probability=close_up_probability)
    window = draw_window(128, 192, BOX, method, rng)
    mask = draw_triplet(image(), window, BOX, method, 32, 1, rng).mask
    x0, y0, x1, y1 = box_in_window(BOX, window, 64)
    assert mask.shape == (64, 64)
    assert mask[(y0 + y1) // 2, (x0 + x1) // 2] == 1
