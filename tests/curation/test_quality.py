"""Measures of a single image."""

import cv2
import numpy as np
import pytest

from pbe.curation.quality import fault, measure, pixels_sha256, sharpness, thumbnail
from pbe.demo.scenes import draw_scene
from pbe.types import Image
from tests.support import parameters


def scene(seed: int) -> Image:
    return draw_scene(np.random.default_rng(seed)).image


def test_brightness_is_mean_luma() -> None:
    assert measure(np.full((8, 8, 3), 255, np.uint8)).brightness == pytest.approx(1, abs=1e-6)
    assert measure(np.full((8, 8, 3), (255, 0, 0), np.uint8)).brightness == pytest.approx(0.299, abs=1e-6)


def test_dark_and_bright_fractions_count_pixels_near_the_ends() -> None:
    image = np.full((4, 4, 3), 128, np.uint8)
    image[0], image[1, :2] = 4, 250
    quality = measure(image)
    assert (quality.dark_frac, quality.bright_frac) == (4 / 16, 2 / 16)


def test_a_flat_image_has_no_sharpness() -> None:
    assert sharpness(np.full((64, 64), 0.5, np.float32)) == pytest.approx(0, abs=1e-6)


def test_sharpness_hardly_depends_on_contrast() -> None:
    luma = scene(3).mean(2).astype(np.float32) / 255
    assert sharpness(luma / 2) == pytest.approx(sharpness(luma), rel=0.1)


def test_sharpness_does_not_depend_on_resolution() -> None:
    luma = scene(0).mean(2).astype(np.float32) / 255
    large = cv2.resize(luma, None, fx=5, fy=5, interpolation=cv2.INTER_NEAREST)
    assert sharpness(large) == pytest.approx(sharpness(luma), rel=1e-3)


def test_blurred_scenes_are_below_the_threshold_and_sharp_ones_above() -> None:
    for seed in range(8):
        image = scene(seed)
        blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8)
        assert fault(measure(image), parameters.curate()) == ""
        assert fault(measure(blurred), parameters.curate()) == "blurred"


def test_exposure_takes_precedence_over_blur() -> None:
    for level, name in ((5, "dark"), (250, "bright"), (128, "blurred")):
        assert fault(measure(np.full((64, 64, 3), level, np.uint8)), parameters.curate()) == name


def test_the_digest_depends_on_every_pixel_and_the_shape() -> None:
    image = scene(1)
    other = image.copy()
    other[-1, -1, -1] ^= 1
    assert pixels_sha256(image) == pixels_sha256(image.copy()) == pixels_sha256(np.asfortranarray(image))
    assert pixels_sha256(image) != pixels_sha256(other)
    assert pixels_sha256(np.zeros((2, 6, 3), np.uint8)) != pixels_sha256(np.zeros((6, 2, 3), np.uint8))


def test_a_thumbnail_averages_pixels() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 200
    small = thumbnail(image)
    assert small.shape == (32, 32, 3)
    assert (small[:, :16] == 0).all()
    assert (small[:, 16:] == 200).all()
