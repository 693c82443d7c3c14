"""Images stored smaller: the size asked for, upright, and known again by the object they came from."""

import io

import numpy as np
import pytest
from PIL import Image

from pbe.acquisition.downscaling import md5_of, shrink, source_md5
from pbe.dataset.images import decode_image, image_size


def encode(size, exif_orientation=None):
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    exif = Image.Exif()
    if exif_orientation:
        exif[0x0112] = exif_orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (64, 32)), ((100, 200), (32, 64)), ((33, 400), (32, 388))])
def test_the_shorter_side_is_as_asked_and_the_shape_is_kept(size, expected):
    whole = encode(size)
    assert image_size(io.BytesIO(shrink(whole, 32, 90, md5_of(whole)))) == expected


def test_a_turned_picture_is_stored_upright():
    small = shrink(encode((200, 100), exif_orientation=6), 32, 90, "0" * 32)
    assert decode_image(small, "small").shape == (64, 32, 3)


def test_a_small_or_a_broken_picture_is_left_as_it_came():
    whole = encode((200, 100))
    assert shrink(whole, 100, 90, md5_of(whole)) is None
    assert shrink(whole[: len(whole) // 2], 32, 90, "0" * 32) is None


def test_it_is_known_by_its_origin_until_the_settings_change():
    whole = encode((200, 100))
    assert source_md5(whole, 32, 90) == md5_of(whole)
    small = shrink(whole, 32, 90, md5_of(whole))
    assert source_md5(small, 32, 90) == md5_of(whole)
    for changed in ((48, 90), (32, 80), (None, 90)):
        assert source_md5(small, *changed) == md5_of(small)


@pytest.mark.parametrize("keep", [3, 5, 40, -1])
def test_a_damaged_one_is_no_longer_known(keep):
    whole = encode((200, 100))
    damaged = shrink(whole, 32, 90, md5_of(whole))[:keep]
    assert source_md5(damaged, 32, 90) == md5_of(damaged)
