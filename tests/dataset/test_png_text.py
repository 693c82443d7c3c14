"""PNG text above Pillow's limit does not make an image unreadable, at any place in the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from pbe.dataset.images import image_size, read_image
from pbe.dataset.png_text import without_text
from pbe.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def write_png(path: Path, num_chars: int) -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * num_chars, zip=True)
    info.add_text("prompt", "x" * num_chars, zip=True)
    PillowImage.fromarray(PIXELS).save(path, pnginfo=info)
    return path.read_bytes()


def move_text_behind_the_pixels(data: bytes) -> bytes:
    bare = without_text(data)
    header, rest = bare[:33], bare[33:]
    text = data[33 : data.index(b"IDAT") - 4]
    assert header + text + rest == data
    return header + rest[:-12] + text + rest[-12:]


@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_png_with_long_compressed_text_is_read(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.png"
    data = write_png(path, 1_200_000)
    path.write_bytes(data if place == "before" else move_text_behind_the_pixels(data))
    assert image_size(path) == (32, 24)
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_text_is_left_out_of_pngs_only_and_pixels_stay(tmp_path: Path) -> None:
    data = write_png(tmp_path / "x.png", 10)
    shorter = without_text(data)
    assert b"adobe" in data
    assert b"adobe" not in shorter
    assert without_text(shorter) is shorter
    assert without_text(b"GIF89a") == b"GIF89a"


def test_a_truncated_png_with_text_stays_an_error(tmp_path: Path) -> None:
    data = write_png(tmp_path / "x.png", 10)
    (tmp_path / "x.png").write_bytes(data[:-500])
    with pytest.raises(UserError, match=r"x\.png: cannot be decoded"):
        read_image(tmp_path / "x.png")
