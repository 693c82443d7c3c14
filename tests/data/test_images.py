from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.data.images import image_size, read_image

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


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, :, 3] = 255
    image = read_image(save(tmp_path / "a.png", PillowImage.fromarray(rgba)))
    assert image[:, 0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_turns_the_picture_and_its_size(tmp_path: Path, name: str) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # the camera was held so that the top of the scene is at the right
    path = save(tmp_path / name, PillowImage.fromarray(RAMP), exif=exif)
    plain = read_image(save(tmp_path / f"plain-{name}", PillowImage.fromarray(RAMP)))
    assert np.array_equal(read_image(path), np.rot90(plain, -1))
    assert image_size(path) == (24, 40)


def test_size_is_read_from_the_header_of_a_truncated_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", PillowImage.effect_noise((80, 64), 60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    assert image_size(path) == (80, 64)
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be decoded as an image: .*truncated"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"page\.jpg") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert "object at" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(ValueError, match=r"gone\.jpg: no such file"):
            read(tmp_path / "gone.jpg")
