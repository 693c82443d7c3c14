"""Image files: every supported kind becomes upright RGB; every other one is refused by name."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image as PillowImage

from pbe.acquisition.download import acquire
from pbe.dataset.images import RefusedImageError, image_size, read_image, read_levels
from pbe.errors import UserError
from tests.support import parameters

RAMP = np.linspace(0, 255, 24 * 40).reshape(24, 40).astype(np.uint8)


def save(path: Path, image: PillowImage.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.jpg"), ("RGB", "a.jpg"), ("CMYK", "a.jpg"), ("1", "a.png"), ("P", "a.png")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    image = read_image(save(tmp_path / name, PillowImage.fromarray(RAMP).convert("RGB").convert(mode)))
    assert image.shape == (24, 40, 3)
    assert image.dtype == np.uint8
    assert image[:4].mean() < 100 < image[-4:].mean()


def test_grey_stays_grey(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", PillowImage.fromarray(RAMP)))
    assert np.array_equal(image, np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_has_pillows_bits_whichever_decoder_reads_it(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    exif = PillowImage.Exif()
    exif[0x0112] = 1
    for options in ({"quality": 60}, {"quality": 95, "progressive": True}, {"exif": exif, "subsampling": 0}):
        path = save(tmp_path / "a.jpg", PillowImage.fromarray(noise).convert(mode), **options)
        assert np.array_equal(read_image(path), np.asarray(PillowImage.open(path).convert("RGB")))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_image_can_be_decoded_smaller(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, PillowImage.fromarray(RAMP).convert("RGB"))
    for reduction in (2, 4, 8):
        small = read_image(path, reduction)
        assert small.shape == (24 // reduction, 40 // reduction, 3)
        assert np.abs(small.mean() - RAMP.mean()) < 2


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", PillowImage.fromarray(RAMP.astype(np.uint16) * 257)))
    assert np.array_equal(image[..., 0], RAMP)


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, :, 3] = 255
    image = read_image(save(tmp_path / "a.png", PillowImage.fromarray(rgba)))
    assert image[:, 0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_turns_the_image_and_its_size(tmp_path: Path, name: str) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored pixels
    path = save(tmp_path / name, PillowImage.fromarray(RAMP), exif=exif)
    plain = read_image(save(tmp_path / f"plain-{name}", PillowImage.fromarray(RAMP)))
    assert np.array_equal(read_image(path), np.rot90(plain, -1))
    assert image_size(path) == (24, 40)


def test_the_size_of_a_truncated_file_is_read_from_its_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", PillowImage.effect_noise((80, 64), 60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    assert image_size(path) == (80, 64)
    with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded as an image: .*truncated"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_not_an_image_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=r"page\.jpg") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert "object at" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=r"gone\.jpg: no such file"):
            read(tmp_path / "gone.jpg")


RGB = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def write_pillow(path: Path, mode: str = "RGB", **options: object) -> None:
    PillowImage.fromarray(RGB).convert(mode).save(path, **options)  # type: ignore[arg-type]


def write_twice(path: Path) -> None:
    write_pillow(path, save_all=True, append_images=[PillowImage.fromarray(RGB[::-1])])


def write_16_bits(path: Path) -> None:
    assert cv2.imwrite(str(path), RGB[..., ::-1].astype(np.uint16) * 257)


def write_png_start(path: Path, width: int, height: int) -> None:
    """Write a PNG whose header gives the size and whose pixels are missing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))]
    written = [struct.pack(">I", len(b)) + kind + b + struct.pack(">I", zlib.crc32(kind + b)) for kind, b in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


SUPPORTED: dict[str, Callable[[Path], object]] = {
    "photo.jpg": lambda p: write_pillow(p, quality=98, subsampling=0),
    "cmyk.jpg": lambda p: write_pillow(p, "CMYK", quality=98),
    "opaque.png": lambda p: write_pillow(p, "RGBA"),
    "16-bits.png": write_16_bits,
    "16-bits.tif": write_16_bits,
    "lossless.webp": lambda p: write_pillow(p, lossless=True),
    "plain.bmp": write_pillow,
    "plain.tif": write_pillow,
    "still.gif": write_pillow,
    "photo.avif": lambda p: write_pillow(p, quality=98),
    "preview-behind-it.mpo": write_twice,
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_kind_of_file_gives_the_same_image(tmp_path: Path, name: str) -> None:
    SUPPORTED[name](tmp_path / name)
    assert image_size(tmp_path / name) == (40, 24)
    assert np.abs(read_image(tmp_path / name).astype(int) - RGB).mean() < 2.5


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "moving.gif": (write_twice, "a GIF of several pictures"),
    "moving.webp": (write_twice, "a WEBP of several pictures"),
    "moving.png": (write_twice, "a PNG of several pictures"),
    "pages.tif": (write_twice, "a TIFF of several pictures"),
    "large.png": (lambda p: write_png_start(p, 12000, 9000), "12000 x 9000 px are more than 100 million"),
    "bomb.png": (lambda p: write_png_start(p, 60000, 60000), "3600000000 pixels.* exceeds limit"),
    "floats.tif": (lambda p: PillowImage.fromarray(RAMP.astype(np.float32)).save(p), "pixels of mode F"),
    "32-bits.tif": (lambda p: PillowImage.fromarray(RAMP.astype(np.int32)).save(p), "pixels of mode I"),
    "lab.tif": (lambda p: write_pillow(p, "LAB"), "pixels of mode LAB"),
    "photo.jp2": (write_pillow, "JPEG 2000 is not read; convert it to JPEG or PNG"),
    "photo.heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC is not read"),
    "film.mp4": (lambda p: p.write_bytes(b"\0\0\0\x18ftypisom" + bytes(40)), "a film is not read"),
    "page.pdf": (lambda p: p.write_bytes(b"%PDF-1.7 and so on"), "PDF is not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_kind_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "a.jpg")  # acquire stores it under this name, whatever its format
    for read in (image_size, read_image):
        with pytest.raises(RefusedImageError, match=rf"a\.jpg: refused: .*{message}"):
            read(tmp_path / "a.jpg")


def test_acquire_counts_refused_and_corrupt_images_apart(tmp_path: Path, caplog: Any) -> None:
    rows = ["image,label,x0,y0,x1,y1,split"]
    kinds = {"ok": SUPPORTED["16-bits.png"], "moving": write_twice, "empty": Path.touch, "other": write_pillow}
    for name, write in kinds.items():
        suffix = "gif" if name == "moving" else "png"
        write(tmp_path / f"{name}.{suffix}")
        rows += [f"{name}.{suffix},Cat,4,4,30,20,{'validation' if name == 'other' else 'train'}"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    settings = parameters.acquire(source="csv", root=str(tmp_path), workers=1, max_lost_frac=0.6, short_side_px=16)
    report = acquire(settings, 0, tmp_path / "out" / "raw")
    assert report.outcomes == {"train": {"corrupt": 1, "ok": 1, "refused": 1}, "validation": {"ok": 1}}
    assert "moving.gif: refused: a GIF of several pictures" in caplog.text
    manifest = pl.read_parquet(tmp_path / "out" / "raw" / "manifest.parquet").filter(outcome="ok")
    assert manifest.select("width", "height").rows() == [(27, 16)] * 2


LEVELS = np.array([[0, 1], [2, 255]], np.uint8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (LEVELS, LEVELS),
        (LEVELS.astype(np.uint16) * 200, LEVELS.astype(int) * 200),
        (np.repeat(LEVELS[..., None], 3, -1), LEVELS),
        (LEVELS[..., None] * np.array([0, 1, 0], np.uint8), LEVELS.astype(int) * 256),
        (np.dstack([LEVELS * 0, LEVELS * 0, LEVELS * 0, LEVELS]), LEVELS > 127),
    ],
)
def test_a_picture_of_numbers_gives_its_numbers(tmp_path: Path, pixels: np.ndarray, expected: np.ndarray) -> None:
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_levels(tmp_path / "a.png"), expected)


def test_a_palette_gives_its_indices_only_if_it_begins_with_black(tmp_path: Path) -> None:
    image = PillowImage.fromarray(LEVELS % 3).convert("P")
    for palette, expected in (([0, 0, 0, 9, 0, 0, 0, 9, 0], LEVELS % 3), ([5, 0, 0, 0, 0, 0, 9, 0, 0], None)):
        image.putpalette(palette)
        image.save(tmp_path / "a.png")
        wanted = np.array([5, 0, 9])[LEVELS % 3] if expected is None else expected
        np.testing.assert_array_equal(read_levels(tmp_path / "a.png"), wanted)
