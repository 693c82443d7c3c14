"""Pictures with what their files carry: an edit keeps it, or says before painting that it cannot."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms
from PIL.PngImagePlugin import PngImageFile, PngInfo

from pbe.dataset.images import RefusedImageError, decode_image
from pbe.errors import UserError
from pbe.serving.pictures import (
    Picture,
    check_size,
    decode_picture,
    edited_picture,
    encode_png,
    losses,
    read_picture,
    write_picture,
)

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
GREY = RGB[..., 0]
MASK = np.zeros((12, 10), np.uint8)
MASK[2:6, 3:8] = 1
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = PROFILE[:16] + b"GRAY" + PROFILE[20:]


def encoded(pixels: NDArray[Any] | PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, PillowImage.Image) else PillowImage.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def painted(picture: Picture, level: int = 77) -> Picture:
    edited = picture.shown.copy()
    edited[MASK == 1] = level
    return edited_picture(picture, edited, MASK)


def edited(data: bytes, tmp_path: Path, name: str = "out.png") -> PillowImage.Image:
    write_picture(painted(decode_picture(data, "source")), tmp_path / name)
    result = PillowImage.open(tmp_path / name)
    result.load()
    return result


def exif_of(**more: Any) -> PillowImage.Exif:
    exif = PillowImage.Exif()
    exif[0x010E] = "a cup"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    for tag, value in more.items():
        exif[int(tag[1:], 16)] = value
    return exif


KEPT = {
    "RGB": RGB,
    "RGBA": np.dstack([RGB, GREY]),
    "L": GREY,
    "LA": np.dstack([GREY, RGB[..., 1]]),
    "I;16": GREY.astype(np.uint16) * np.uint16(251),
}


@pytest.mark.parametrize("mode", KEPT)
@pytest.mark.parametrize("name", ["out.png", "out.tif"])
def test_unmasked_pixels_keep_every_channel_and_bit(mode: str, name: str, tmp_path: Path) -> None:
    result = edited(encoded(KEPT[mode]), tmp_path, name)
    assert result.mode == mode
    pixels = np.asarray(result)
    assert np.array_equal(pixels[MASK == 0], KEPT[mode][MASK == 0])
    first = pixels[MASK == 1] if pixels.ndim == 2 else pixels[MASK == 1][:, 0]
    assert (first == (77 * 257 if mode == "I;16" else 77)).all()
    if mode.endswith("A"):
        assert (pixels[MASK == 1][:, -1] == 255).all()


@pytest.mark.parametrize("mode", KEPT)
def test_the_network_sees_what_read_image_returns(mode: str) -> None:
    data = encoded(KEPT[mode])
    assert np.array_equal(decode_picture(data, "x").shown, decode_image(data, "x"))


def test_a_plain_picture_is_written_as_before(tmp_path: Path) -> None:
    picture = painted(decode_picture(encoded(RGB), "x"))
    write_picture(picture, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == encoded(picture.shown) == encode_png(picture)
    assert losses(picture, "PNG", MASK) == []


@pytest.mark.parametrize(("name", "kind"), [("o.png", "PNG"), ("o.tif", "TIFF"), ("o.jpg", "JPEG"), ("o.webp", "WEBP")])
def test_profile_exif_and_resolution_are_kept(name: str, kind: str, tmp_path: Path) -> None:
    source = encoded(RGB, "JPEG", icc_profile=PROFILE, exif=exif_of(), dpi=(300, 300))
    assert not any("source" in note for note in losses(decode_picture(source, "x"), kind) if kind != "WEBP")
    result = edited(source, tmp_path, name)
    assert result.info["icc_profile"] == PROFILE
    assert result.getexif()[0x010E] == "a cup"
    assert result.getexif().get_ifd(0x8769)[0x829A] == pytest.approx(0.01)
    if kind != "WEBP":
        assert tuple(float(value) for value in result.info["dpi"]) == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_the_orientation_is_applied_once(orientation: int, kind: str, tmp_path: Path) -> None:
    source = encoded(RGB, kind, exif=exif_of(x0112=orientation))
    shown = decode_image(source, "x")
    picture = decode_picture(source, "x")
    write_picture(picture, tmp_path / "out.png")
    result = PillowImage.open(tmp_path / "out.png")
    assert np.array_equal(np.asarray(result), shown)
    assert result.getexif().get(0x0112, 1) == 1
    assert result.getexif()[0x010E] == "a cup"


def test_the_text_of_a_png_is_kept_and_its_loss_elsewhere_is_said(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Author", "Käthe")
    info.add_itxt("Title", "Eine Tasse", "de", "Titel")
    source = encoded(RGB, pnginfo=info)
    result = edited(source, tmp_path)
    assert isinstance(result, PngImageFile)
    assert result.text == {"Author": "Käthe", "Title": "Eine Tasse"}
    assert result.text["Title"].lang == "de"  # type: ignore[union-attr]
    assert losses(decode_picture(source, "x"), "TIFF") == ["TIFF does not keep the source's text; PNG does"]


def test_gamma_of_a_png_is_kept(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"gAMA", (100000).to_bytes(4, "big"))
    source = encoded(RGB, pnginfo=info)
    assert edited(source, tmp_path).info["gamma"] == 1.0
    assert losses(decode_picture(source, "x"), "JPEG")[0] == "JPEG does not keep the source's gamma; PNG does"


def test_xmp_is_kept_and_loses_its_orientation(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6" dc="cup"/>'
    source = encoded(RGB, "JPEG", xmp=xmp, exif=exif_of(x0112=6))
    for name in ("out.png", "out.jpg", "out.webp", "out.tif"):
        result = edited_bytes(source, tmp_path / name)
        assert 'dc="cup"' in result
        assert "Orientation" not in result


def edited_bytes(source: bytes, path: Path) -> str:
    write_picture(decode_picture(source, "x"), path)
    with PillowImage.open(path) as result:
        result.load()
        xmp = result.info.get("xmp") or result.info["XML:com.adobe.xmp"]
    return xmp.decode() if isinstance(xmp, bytes) else str(xmp)


def test_a_palette_becomes_its_colours_and_keeps_its_opacity(tmp_path: Path) -> None:
    image = PillowImage.fromarray(GREY % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    plain, transparent = encoded(image), encoded(image, transparency=2)
    assert edited(plain, tmp_path).mode == "RGB"
    result = np.asarray(edited(transparent, tmp_path))
    assert np.array_equal(result[MASK == 0, 3], np.where(GREY % 4 == 2, 0, 255)[MASK == 0])
    assert losses(decode_picture(plain, "x"), "PNG") == []


def test_what_no_result_can_keep_is_said() -> None:
    ink = PillowImage.fromarray(RGB).convert("CMYK")
    deep = bytes(encoded_rgb16())
    grey_profile = encoded(RGB, icc_profile=GREY_PROFILE)
    for data, word in ((encoded(ink, "TIFF"), "CMYK"), (deep, "16 bits"), (grey_profile, "profile does not fit")):
        (note,) = losses(decode_picture(data, "x"), "PNG")
        assert word in note
    assert "greyscale" in losses(decode_picture(encoded(GREY), "x"), "PNG")[0]
    assert "become opaque" in losses(decode_picture(encoded(KEPT["RGBA"]), "x"), "PNG", MASK)[0]


def encoded_rgb16() -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", RGB.astype(np.uint16) * 257)[1])


def test_a_grey_profile_stays_with_grey_pixels(tmp_path: Path) -> None:
    assert edited(encoded(GREY, icc_profile=GREY_PROFILE), tmp_path).info["icc_profile"] == GREY_PROFILE


@pytest.mark.parametrize(
    ("mode", "name", "words"),
    [
        ("RGBA", "o.jpg", ["no transparency", "JPEG changes unmasked pixels"]),
        ("RGBA", "o.bmp", ["no transparency"]),
        ("RGBA", "o.webp", []),
        ("I;16", "o.jpg", ["16 bits", "JPEG changes"]),
        ("L", "o.webp", ["no greyscale"]),
        ("RGB", "o.webp", []),
        ("RGB", "o.bmp", []),
    ],
)
def test_what_a_format_cannot_keep_is_said_and_the_rest_is_unchanged(
    mode: str, name: str, words: list[str], tmp_path: Path
) -> None:
    data = encoded(KEPT[mode])
    kind = {".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}[Path(name).suffix]
    notes = losses(decode_picture(data, "x"), kind)
    assert [word for word in words if not any(word in note for note in notes)] == []
    assert bool(notes) == bool(words)
    result = edited(data, tmp_path, name)
    if mode in ("RGB", "RGBA") and kind != "JPEG":
        shown = np.asarray(result.convert(mode if kind == "WEBP" else "RGB"))
        expected = KEPT[mode] if kind == "WEBP" or mode == "RGB" else decode_image(data, "x")
        assert np.array_equal(shown[MASK == 0], expected[MASK == 0])


def test_a_format_that_is_too_small_is_refused() -> None:
    picture = decode_picture(encoded(np.zeros((1, 16384, 3), np.uint8)), "x")
    check_size(picture, "PNG", "o.png")
    with pytest.raises(UserError, match=r"o\.webp: 16384 px are more than the 16383 px of WEBP"):
        check_size(picture, "WEBP", "o.webp")


def test_too_much_text_is_left_out_with_a_note() -> None:
    info = PngInfo()
    info.add_text("Author", "x" * 2_000_000, zip=True)
    picture = decode_picture(encoded(RGB, pnginfo=info), "x")
    assert np.array_equal(picture.shown, RGB)
    assert "too large to keep" in losses(picture, "PNG")[0]


def test_refused_and_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(encoded(RGB)[:200])
    with pytest.raises(UserError, match=r"cut\.png: cannot be decoded"):
        read_picture(tmp_path / "cut.png")
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        read_picture(tmp_path / "none.png")
    moving = encoded(RGB, "GIF", save_all=True, append_images=[PillowImage.fromarray(255 - RGB)])
    with pytest.raises(RefusedImageError, match="of several pictures"):
        decode_picture(moving, "x")


def test_the_size_that_exif_gives_is_that_of_the_pixels(tmp_path: Path) -> None:
    exif = exif_of(x0112=6)
    exif.get_ifd(0x8769)[0xA002] = 10
    exif.get_ifd(0x8769)[0xA003] = 12
    write_picture(decode_picture(encoded(RGB, "JPEG", exif=exif), "x"), tmp_path / "out.png")
    with PillowImage.open(tmp_path / "out.png") as result:
        details = result.getexif().get_ifd(0x8769)
        assert (details[0xA002], details[0xA003]) == result.size == (12, 10)
