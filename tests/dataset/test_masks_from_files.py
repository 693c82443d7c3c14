"""Masks from files: what every mode means, and which files are refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.images import RefusedImageError, decode_mask, read_levels, read_mask
from pbe.errors import UserError

LEVELS = np.array([[0, 64, 127], [128, 200, 255]], np.uint8)
MARKED = np.array([[0, 0, 0], [1, 1, 1]], np.uint8)


def encode(image: PillowImage.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_alpha(image: PillowImage.Image, alpha: NDArray[np.uint8]) -> PillowImage.Image:
    image.putalpha(PillowImage.fromarray(alpha))
    return image


GREY = PillowImage.fromarray(LEVELS)
FILES = {
    "one bit": encode(GREY.point(lambda level: 255 * (level > 127)).convert("1")),
    "grey": encode(GREY),
    "grey and alpha": encode(with_alpha(GREY.copy(), 255 - LEVELS)),
    "rgb": encode(GREY.convert("RGB")),
    "rgb and alpha": encode(with_alpha(GREY.convert("RGB"), 255 - LEVELS)),
    "palette": encode(GREY.convert("P")),
    "palette with a transparent colour": encode(GREY.convert("P"), transparency=5),
    "16 bits": encode(PillowImage.fromarray(LEVELS.astype(np.uint16) * 257)),
    "16 bits of a TIFF": encode(PillowImage.fromarray(LEVELS.astype(np.uint16) * 257), "TIFF"),
    "bmp": encode(GREY, "BMP"),
    "gif": encode(GREY, "GIF"),
    "webp": encode(GREY.convert("RGB"), "WEBP", lossless=True),
    "tiff of ink": encode(GREY.convert("RGB").convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_pixel_is_repainted_where_its_luminance_is_above_127(name: str) -> None:
    mask = decode_mask(FILES[name], name)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, MARKED)


def test_a_colour_counts_by_its_luminance() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]], np.uint8)  # 76, 149, 29, 225
    assert decode_mask(encode(PillowImage.fromarray(colours)), "mask").tolist() == [[0, 1, 0, 1]]


def test_a_palette_is_looked_up_whatever_its_indices() -> None:
    image = PillowImage.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    assert decode_mask(encode(image), "mask").tolist() == [[1, 0]]


def test_sixteen_bits_have_the_same_threshold_as_eight() -> None:
    levels = np.array([[127 * 257, 127 * 257 + 1]], np.uint16)
    assert decode_mask(encode(PillowImage.fromarray(levels)), "mask").tolist() == [[0, 1]]


def test_a_mask_is_turned_upright() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decode_mask(encode(GREY, exif=exif), "mask"), np.rot90(MARKED, -1))


def test_masks_of_other_kinds_are_refused() -> None:
    floats = encode(PillowImage.fromarray(LEVELS.astype(np.float32)), "TIFF")
    moving = encode(GREY, "GIF", save_all=True, append_images=[GREY.rotate(180)])
    for data, message in ((floats, "pixels of mode F"), (moving, "a GIF of several pictures")):
        with pytest.raises(RefusedImageError, match=f"row 3: refused: {message}"):
            decode_mask(data, "row 3")


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(b"<html>")
    (tmp_path / "cut.png").write_bytes(encode(PillowImage.effect_noise((64, 64), 50))[:900])
    for read in (read_mask, read_levels):
        with pytest.raises(UserError, match=r"none\.png: no such file"):
            read(tmp_path / "none.png")
        with pytest.raises(UserError, match=r"page\.png: not an image"):
            read(tmp_path / "page.png")
        with pytest.raises(UserError, match=r"cut\.png: cannot be decoded as an image"):
            read(tmp_path / "cut.png")
        with pytest.raises(UserError, match="cannot be read: is a directory"):
            read(tmp_path)
