"""Masks from files: what every mode means, and which files are refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.images import RefusedImageError, read_levels
from pbe.dataset.mask_images import decode_mask, read_mask
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


NUMBERS: dict[str, NDArray[Any]] = {
    "0 and 1": np.array([[0, 0, 0], [1, 1, 1]], np.uint8),
    "0 and 1 in 16 bits": np.array([[0, 0, 0], [1, 1, 1]], np.uint16),
    "8 bits in 16": np.array([[0, 64, 127], [128, 200, 255]], np.uint16),
    "16 bits": np.array([[0, 64, 127 * 257], [127 * 257 + 1, 60000, 65535]], np.uint16),
    "32 bits": np.array([[0, 0, 0], [1, 1, 1]], np.int32),
    "floats to 1": np.array([[0, 0.2, 0.5], [0.6, 0.9, 1]], np.float32),
    "floats to 255": np.array([[0, 20, 127], [128, 200, 255]], np.float32),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_highest_level_decides_the_scale(name: str) -> None:
    assert np.array_equal(decode_mask(encode(PillowImage.fromarray(NUMBERS[name]), "TIFF"), name), MARKED)


@pytest.mark.parametrize("level", [np.nan, np.inf])
def test_a_mask_of_floats_that_are_no_numbers_is_refused(level: float) -> None:
    levels = PillowImage.fromarray(np.array([[0, level]], np.float32))
    with pytest.raises(UserError, match=r"^row 3: holds NaN or infinite values"):
        decode_mask(encode(levels, "TIFF"), "row 3")


SHAPE = np.zeros((8, 8), np.uint8)
SHAPE[2:6, 3:7] = 255
WHITE, BLACK = np.full_like(SHAPE, 255), np.zeros_like(SHAPE)


def layer(colour: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> bytes:
    return encode(with_alpha(PillowImage.fromarray(colour).convert("RGB"), opacity))


@pytest.mark.parametrize(
    ("colour", "opacity"),
    [
        (WHITE, SHAPE),  # a white layer, as drawing programs keep the colour of transparent pixels
        (BLACK, SHAPE),  # dark strokes on nothing
        (SHAPE, SHAPE),  # white strokes on black that is transparent
        (SHAPE, WHITE),
        (SHAPE, 255 - SHAPE),  # white where a hole was cut into a black layer
    ],
    ids=["one white", "one black", "drawn", "opaque", "hole"],
)
def test_opacity_decides_where_colour_says_nothing(colour: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> None:
    assert np.array_equal(decode_mask(layer(colour, opacity), "mask"), SHAPE // 255)


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_one_opacity_everywhere_decides_nothing(opacity: int) -> None:
    assert np.array_equal(decode_mask(layer(SHAPE, np.full_like(SHAPE, opacity)), "mask"), SHAPE // 255)


def test_the_soft_rim_of_a_brush_counts_where_it_is_more_opaque_than_not() -> None:
    colour, opacity = SHAPE.copy(), SHAPE.copy()
    colour[1, 3:7] = 255
    opacity[1, 3:7] = 100
    assert np.array_equal(decode_mask(layer(colour, opacity), "mask"), SHAPE // 255)


def test_a_mask_whose_white_is_mostly_transparent_is_ambiguous() -> None:
    colour, opacity = SHAPE.copy(), SHAPE.copy()
    opacity[2:5] = 0
    with pytest.raises(UserError, match=r"^m: is ambiguous, because 12 of its 16 white pixels"):
        decode_mask(layer(colour, opacity), "m")


def test_the_dark_colours_of_a_label_image_are_marked() -> None:
    image = PillowImage.fromarray((SHAPE > 0).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    assert np.array_equal(decode_mask(encode(image), "mask"), SHAPE // 255)


def test_a_black_mask_marks_nothing() -> None:
    assert not decode_mask(encode(PillowImage.fromarray(BLACK)), "mask").any()
    assert not decode_mask(encode(PillowImage.fromarray(BLACK).convert("P")), "mask").any()


def test_animated_masks_and_formats_that_are_not_listed_are_refused() -> None:
    moving = encode(GREY, "GIF", save_all=True, append_images=[GREY.rotate(180)])
    pages = encode(GREY, "TIFF", save_all=True, append_images=[GREY.rotate(180)])
    for data, message in ((moving, "refused: a GIF of several"), (pages, "refused: a TIFF of several")):
        with pytest.raises(RefusedImageError, match=f"row 3: {message}"):
            decode_mask(data, "row 3")
    for other in (encode(GREY, "EPS"), encode(GREY, "PPM"), encode(GREY, "TGA")):
        with pytest.raises(UserError, match="row 3: not an image"):
            decode_mask(other, "row 3")


def test_a_mask_is_refused_by_its_header_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbe.dataset.opened_images.MAX_PIXELS", 63)
    monkeypatch.setattr(PillowImage.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(RefusedImageError, match="8 x 8 px are more than"):
        decode_mask(encode_header(), "mask")


def encode_header() -> bytes:
    """Return a PNG of 8 x 8 without pixels."""
    signature = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return signature + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", size), (b"IDAT", b""), (b"IEND", b""))
    )


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
