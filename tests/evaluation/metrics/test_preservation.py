"""PSNR and SSIM of the background, against scikit-image and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pbe.evaluation.metrics.preservation import (
    background_of,
    keep_background,
    psnr,
    ring_around,
    ssim,
    ssim_map,
)

Image = NDArray[np.uint8]


def noise(seed: int, height: int = 40, width: int = 33) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def near(image: Image, seed: int) -> Image:
    change = np.random.default_rng(seed).integers(-20, 21, image.shape)
    return np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)


def box_mask(height: int = 40, width: int = 33) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[10:25, 8:20] = 1
    return mask


everywhere = np.ones((40, 33), np.bool_)


def test_psnr_is_scikit_images() -> None:
    source = noise(0)
    result = near(source, 1)
    expected = peak_signal_noise_ratio(source, result, data_range=255)
    assert psnr(result, source, everywhere) == pytest.approx(expected, abs=1e-9)


def test_psnr_by_hand() -> None:
    source, result = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    result[0, 0] = 51  # a fifth of 255
    where = np.array([[True, True], [False, False]])
    assert psnr(result, source, where) == pytest.approx(10 * np.log10(25 * 2))
    assert psnr(result, source, ~where) == 100.0
    assert np.isnan(psnr(result, source, np.zeros((2, 2), np.bool_)))


def test_psnr_of_the_least_change_of_a_large_picture_is_capped() -> None:
    source = np.zeros((1000, 1000, 3), np.uint8)
    result = source.copy()
    result[0, 0, 0] = 1
    assert psnr(result, source, np.ones((1000, 1000), np.bool_)) == 100.0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(11, 30), st.integers(11, 30))
def test_the_map_of_ssim_is_scikit_images(seed: int, height: int, width: int) -> None:
    source = noise(seed, height, width)
    result = near(source, seed + 1)
    _, expected = structural_similarity(
        source, result, channel_axis=2, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert np.allclose(ssim_map(result, source), expected.mean(-1), atol=1e-9)


def test_ssim_is_the_mean_of_the_map_in_the_ring() -> None:
    source, mask = noise(0), box_mask()
    result, ring = near(source, 1), ring_around(mask)
    _, expected = structural_similarity(
        source, result, channel_axis=2, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert ssim(result, source, ring) == pytest.approx(expected[ring].mean(), abs=1e-9)


def test_a_change_inside_the_mask_does_not_count() -> None:
    source, mask = noise(0), box_mask()
    result = np.where(mask[..., None] == 1, noise(1), source)
    kept = keep_background(result, source, mask)
    assert ssim(kept, source, ring_around(mask)) == 1.0
    assert psnr(kept, source, background_of(mask)) == 100.0
    assert ssim(result, source, ring_around(mask)) < 0.9  # windows that read across the edge


def test_a_change_beside_the_mask_counts_more_in_the_ring() -> None:
    source, mask = noise(0), box_mask()
    result = source.copy()
    result[8:10, 8:20] = 0
    values = [(psnr(result, source, where), ssim(result, source, where)) for where in (ring_around(mask), mask == 0)]
    assert values[0] < values[1]
    assert values[0][1] < values[1][1]


def test_the_ring_of_one_pixel_is_two_pixels_wide() -> None:
    mask = np.zeros((7, 7), np.uint8)
    mask[3, 3] = 1
    rows = [
        "0000000",
        "0001000",
        "0011100",
        "0110110",
        "0011100",
        "0001000",
        "0000000",
    ]
    assert np.array_equal(ring_around(mask), np.array([[c == "1" for c in row] for row in rows]))


def test_the_ring_grows_with_the_mask_and_stays_in_the_picture() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32, :32] = 1  # at the picture's corner; a quarter of 32 px
    ring = ring_around(mask)
    assert ring[:32, 32:40].all()
    assert not ring[:32, 40:].any()
    assert not ring[mask == 1].any()


def test_a_mask_of_all_pixels_or_none_has_no_ring() -> None:
    for mask in (np.ones((9, 9), np.uint8), np.zeros((9, 9), np.uint8)):
        assert not ring_around(mask).any()
    assert np.isnan(ssim(noise(0, 9, 9), noise(1, 9, 9), np.zeros((9, 9), np.bool_)))
