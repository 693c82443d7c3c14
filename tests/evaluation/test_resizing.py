"""Resizing and crops of both protocols, against Pillow and torch by hand."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.Image import Resampling
from torch import Tensor

from pbe.evaluation.encoders.features import CorrectedFeatures, OfficialFeatures, official_box
from pbe.evaluation.encoders.resizing import centre_square, clip_input, stretch
from pbe.evaluation.scoring.protocols import open_protocols, shares_whole_images


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "resized", "box"),
    [
        (40, 40, (16, 16), (0, 0, 16, 16)),
        (40, 59, (23, 16), (4, 0, 20, 16)),  # 16 * 59 / 40 = 23.6, cut off; (23 - 16) / 2 = 3.5, to the even side
        (59, 40, (16, 23), (0, 4, 16, 20)),
        (40, 53, (21, 16), (2, 0, 18, 16)),  # 2.5, to the even side
        (9, 12, (21, 16), (2, 0, 18, 16)),  # enlarged
        (16, 20, (20, 16), (2, 0, 18, 16)),
    ],
)
def test_whole_images_are_resized_as_clip_and_the_authors_do(
    height: int, width: int, resized: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    pixels = image(height, width)
    for function, resampling in ((clip_input, Resampling.BICUBIC), (centre_square, Resampling.BILINEAR)):
        expected = PillowImage.fromarray(pixels).resize(resized, resampling).crop(box)
        np.testing.assert_array_equal(function(pixels, 16), np.asarray(expected))


def test_exemplars_are_stretched_as_pillows_resize_does_by_default() -> None:
    pixels = image(30, 17)
    np.testing.assert_array_equal(stretch(pixels, 16), np.asarray(PillowImage.fromarray(pixels).resize((16, 16))))


@pytest.mark.parametrize("function", [clip_input, centre_square, stretch])
def test_an_image_of_the_size_is_unchanged(function: object) -> None:
    assert callable(function)
    np.testing.assert_array_equal(function(image(16, 16), 16), image(16, 16))


def mask(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    out = np.zeros((20, 24), np.uint8)
    for x0, y0, x1, y1 in boxes:
        out[y0:y1, x0:x1] = 1
    return out


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(3, 4, 9, 12)], (3, 4, 8, 11)),
        ([(5, 2, 8, 4), (2, 4, 12, 9)], (5, 2, 11, 8)),  # the first and the last pixel in reading order
        ([(9, 2, 12, 4), (2, 4, 6, 9)], None),  # the last pixel lies to the left of the first
        ([(3, 4, 9, 5)], None),
        ([], None),
    ],
)
def test_the_official_crop_ends_before_the_last_masked_pixel(
    boxes: list[tuple[int, int, int, int]], expected: tuple[int, int, int, int] | None
) -> None:
    assert official_box(mask(*boxes)) == expected


class Pixels:
    """An encoder whose features are its pixels."""

    name, digest, input_px, sees_tiles = "pixels", "0", 8, False

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.encode_pixels(self.to_pixels(images))

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div(255).sub(0.5).div(0.25)

    def encode_pixels(self, pixels: Tensor) -> NDArray[np.float32]:
        assert pixels.shape[1:] == (3, 8, 8)
        return pixels.flatten(1).numpy()


def test_the_official_crop_is_bilinear_without_antialiasing_and_not_rounded() -> None:
    results, masks = [image(20, 24, 0), image(20, 24, 1)], [mask((1, 2, 21, 19)), mask((5, 5, 9, 8))]
    found = OfficialFeatures(Pixels()).boxes(results, masks)
    for feature, result, (y0, y1, x0, x1) in zip(found, results, ((2, 18, 1, 20), (5, 7, 5, 8)), strict=True):
        crop = (result[y0:y1, x0:x1] / 255 - 0.5) / 0.25
        np.testing.assert_allclose(feature, bilinear(crop, 8).transpose(2, 0, 1).ravel(), atol=1e-5)


def bilinear(pixels: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Sample the four pixels around each new pixel's centre."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, None)
        low = at.astype(int)
        high, share = np.minimum(low + 1, length - 1), at - low
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    return pixels


def test_the_corrected_crop_is_the_whole_box_with_antialiasing() -> None:
    result = image(20, 24)
    found = CorrectedFeatures(Pixels()).boxes([result], [mask((1, 2, 21, 19))])
    expected = PillowImage.fromarray(result[2:19, 1:21]).resize((8, 8), Resampling.BICUBIC)
    np.testing.assert_array_equal(found, Pixels()(np.array(expected)[None]))


def test_both_protocols_share_whole_images_and_exemplars() -> None:
    protocols = open_protocols("both", Pixels())
    results, exemplars = [image(20, 24), image(24, 20)], [image(5, 9), image(30, 30)]
    whole = [protocol.features.whole(results) for protocol in protocols]
    np.testing.assert_array_equal(*whole)
    np.testing.assert_array_equal(*[protocol.features.exemplars(exemplars) for protocol in protocols])
    assert shares_whole_images(protocols)


def test_a_case_without_an_official_crop_has_no_score_and_others_keep_theirs() -> None:
    official = OfficialFeatures(Pixels())
    results = [image(20, 24, 0), image(20, 24, 1)]
    empty, box = mask((3, 4, 9, 5)), mask((1, 2, 21, 19))
    found = official.boxes(results, [empty, box])
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], official.boxes(results[1:], [box]))
    assert np.isnan(official.boxes(results[:1], [empty])).all()
    protocol = open_protocols("official", Pixels())[0]
    assert protocol.clip_score(np.array([np.nan, 80.0])) == {"clip_score": None}
    assert protocol.clip_score(np.array([70.0, 80.0])) == {"clip_score": 75.0}
