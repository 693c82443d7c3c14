"""Windows of photographs: the box is inside, close-ups show it larger, half of them are mirrored."""

import numpy as np
import pytest

from pbe.demo.photo_weights.photos import Photo
from pbe.demo.photo_weights.recipe import IMAGE_PX
from pbe.demo.photo_weights.windows import draw_window_of
from pbe.types import Box, Image


def photograph(box: Box, height: int = 200, width: int = 300) -> tuple[Image, Photo]:
    """Return a black picture with a white box whose left column is red."""
    image = np.zeros((height, width, 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 255
    image[y0:y1, x0 : x0 + (x1 - x0) // 4] = (255, 0, 0)
    return image, Photo("p.jpg", "train", "box", "p", box)


def red_share(window: Image) -> float:
    return float((window[..., 0] > 127).mean())


@pytest.mark.parametrize("box", [(100, 60, 140, 100), (0, 0, 30, 40), (250, 150, 300, 200)])
def test_a_window_is_square_and_holds_the_whole_box(box: Box) -> None:
    image, photo = photograph(box)
    for seed in range(20):
        window = draw_window_of(image, photo, 0.5, np.random.default_rng(seed))
        assert window.shape == (IMAGE_PX, IMAGE_PX, 3)
        assert window.dtype == np.uint8
        red, white = window[..., 0] > 127, window[..., 1] > 127
        quarter = 1 - white.sum() / red.sum()  # cut off on either side, the red part would be another share
        assert quarter == pytest.approx(0.25, abs=0.06)


def test_without_close_ups_the_window_has_the_short_side() -> None:
    image, photo = photograph((100, 60, 140, 100))
    for seed in range(5):
        share = red_share(draw_window_of(image, photo, 0.0, np.random.default_rng(seed)))
        assert share == pytest.approx(40**2 / 200**2, rel=0.1)


def test_close_ups_show_the_box_larger() -> None:
    image, photo = photograph((100, 60, 140, 100))
    shares = [red_share(draw_window_of(image, photo, 1.0, np.random.default_rng(seed))) for seed in range(30)]
    assert min(shares) > 0.9 * 40**2 / 200**2
    assert np.mean(shares) > 1.5 * 40**2 / 200**2


def test_half_of_the_windows_are_mirrored() -> None:
    image, photo = photograph((100, 60, 140, 100))
    mirrored = 0
    for seed in range(100):
        window = draw_window_of(image, photo, 0.0, np.random.default_rng(seed))
        red, white = (np.nonzero(mask.any(0))[0].mean() for mask in (window[..., 0] > 127, window[..., 1] > 127))
        mirrored += bool(white < red)
    assert 35 < mirrored < 65


def test_the_same_generator_draws_the_same_window() -> None:
    image, photo = photograph((100, 60, 140, 100))
    first, second = (draw_window_of(image, photo, 0.5, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
