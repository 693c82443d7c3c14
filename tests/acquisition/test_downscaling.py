"""Reduced images: their size and orientation, and how a later run recognises the source's object."""

import io

import numpy as np
import pytest
from PIL import Image

from pbe.acquisition.downscaling import md5_of, shrink, source_md5
from pbe.dataset.images import decode_image, image_size


def encode(size: tuple[int, int], exif_orientation: int | None = None) -> bytes:
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    exif = Image.Exif()
    if exif_orientation:
        exif[0x0112] = exif_orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def reduce(content: bytes, short_side_px: int = 32) -> bytes:
    reduced = shrink(content, short_side_px, 90, md5_of(content))
    assert reduced is not None
    return reduced


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (64, 32)), ((100, 200), (32, 64)), ((33, 400), (32, 388))])
def test_the_shorter_side_is_reduced_and_the_proportions_are_kept(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert image_size(io.BytesIO(reduce(encode(size)))) == expected


def test_an_image_with_an_exif_orientation_is_stored_upright() -> None:
    assert decode_image(reduce(encode((200, 100), exif_orientation=6)), "small").shape == (64, 32, 3)


def test_a_small_or_damaged_image_is_not_reduced() -> None:
    original = encode((200, 100))
    assert shrink(original, 100, 90, md5_of(original)) is None
    assert shrink(original[: len(original) // 2], 32, 90, "0" * 32) is None


def test_a_reduced_image_has_the_md5_of_the_source_until_the_settings_change() -> None:
    original = encode((200, 100))
    assert source_md5(original, 32, 90) == md5_of(original)
    reduced = reduce(original)
    assert source_md5(reduced, 32, 90) == md5_of(original)
    for short_side_px, quality in ((48, 90), (32, 80), (None, 90)):
        assert source_md5(reduced, short_side_px, quality) == md5_of(reduced)


@pytest.mark.parametrize("keep", [3, 5, 40, -1])
def test_a_truncated_reduced_image_does_not_have_the_md5_of_the_source(keep: int) -> None:
    damaged = reduce(encode((200, 100)))[:keep]
    assert source_md5(damaged, 32, 90) == md5_of(damaged)
