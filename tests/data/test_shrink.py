"""Images stored smaller: the size asked for, upright, and known again by the object they came from."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from pbe.data.images import image_size, read_image
from pbe.data.shrink import shrink, source_md5


def write(path, size, exif_orientation=None):
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    exif = Image.Exif()
    if exif_orientation:
        exif[0x0112] = exif_orientation
    Image.fromarray(pixels).save(path, "JPEG", quality=95, exif=exif)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (64, 32)), ((100, 200), (32, 64)), ((33, 400), (32, 388))])
def test_the_shorter_side_is_as_asked_and_the_shape_is_kept(tmp_path, size, expected):
    md5 = write(tmp_path / "a.jpg", size)
    assert shrink(tmp_path / "a.jpg", tmp_path / "small.jpg", 32, 90, md5)
    assert image_size(tmp_path / "small.jpg") == expected
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.jpg", "small.jpg"]


def test_a_turned_picture_is_stored_upright(tmp_path):
    md5 = write(tmp_path / "a.jpg", (200, 100), exif_orientation=6)
    shrink(tmp_path / "a.jpg", tmp_path / "small.jpg", 32, 90, md5)
    assert read_image(tmp_path / "small.jpg").shape == (64, 32, 3)


def test_a_small_or_a_broken_picture_is_left_as_it_came(tmp_path):
    md5 = write(tmp_path / "a.jpg", (200, 100))
    assert not shrink(tmp_path / "a.jpg", tmp_path / "small.jpg", 100, 90, md5)
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    assert not shrink(tmp_path / "a.jpg", tmp_path / "small.jpg", 32, 90, md5)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


def test_it_is_known_by_its_origin_until_the_settings_change(tmp_path):
    md5 = write(tmp_path / "a.jpg", (200, 100))
    assert source_md5(tmp_path / "a.jpg", 32, 90) == md5
    shrink(tmp_path / "a.jpg", tmp_path / "a.jpg", 32, 90, md5)
    assert source_md5(tmp_path / "a.jpg", 32, 90) == md5
    for changed in ((48, 90), (32, 80), (None, 90)):
        assert source_md5(tmp_path / "a.jpg", *changed) == hashlib.md5((tmp_path / "a.jpg").read_bytes()).hexdigest()


@pytest.mark.parametrize("keep", [3, 5, 40, -1])
def test_a_damaged_one_is_no_longer_known(tmp_path, keep):
    md5 = write(tmp_path / "a.jpg", (200, 100))
    shrink(tmp_path / "a.jpg", tmp_path / "a.jpg", 32, 90, md5)
    damaged = (tmp_path / "a.jpg").read_bytes()[:keep]
    (tmp_path / "a.jpg").write_bytes(damaged)
    assert source_md5(tmp_path / "a.jpg", 32, 90) == hashlib.md5(damaged).hexdigest()
