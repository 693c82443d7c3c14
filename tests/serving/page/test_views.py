"""Pictures as the page shows them."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from pbe.serving.editor import picture_of
from pbe.serving.page.held import HeldSource, box_of, hold_variant
from pbe.serving.page.views import CHANGED, OUTLINE, close_up_box, crop, difference, encode_marks, encode_view
from pbe.serving.pictures import Picture, decode_picture, encode_png
from pbe.types import Image, Mask


def decoded(data: bytes) -> PillowImage.Image:
    return PillowImage.open(io.BytesIO(data))


def grey(height: int, width: int) -> Image:
    return np.full((height, width, 3), 100, np.uint8)


def box_mask(shape: tuple[int, int], left: int, top: int, right: int, bottom: int) -> Mask:
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def test_a_small_picture_is_shown_without_loss_and_with_its_profile() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data, media_type = encode_view(image, profile)
    assert media_type == "image/png"
    assert np.array_equal(np.asarray(decoded(data)), image)
    assert decoded(data).info["icc_profile"] == profile


def test_a_large_picture_is_reduced() -> None:
    data, media_type = encode_view(grey(1500, 3000))
    assert media_type == "image/jpeg"
    assert decoded(data).size == (2048, 1024)


def test_marks_are_opaque_where_the_mask_is() -> None:
    mask = box_mask((4, 6), 1, 2, 3, 4)
    alpha = np.asarray(decoded(encode_marks(mask)).convert("RGBA"))[..., 3]
    assert np.array_equal(alpha, mask * 255)


@pytest.mark.parametrize(
    ("box", "close_up"),
    [
        ((100, 100, 200, 150), (40, 40, 260, 210)),
        ((0, 0, 10, 10), (0, 0, 26, 26)),
        ((0, 0, 400, 300), (0, 0, 400, 300)),
    ],
)
def test_a_close_up_shows_the_mask_with_a_margin(box: tuple[int, ...], close_up: tuple[int, ...]) -> None:
    assert close_up_box(box_mask((300, 400), *box)) == close_up


def test_a_crop_is_a_part_of_the_picture() -> None:
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    assert np.array_equal(crop(image, (1, 2, 3, 5)), image[2:5, 1:3])


def edited(picture: Picture, row: int, column: int) -> Picture:
    pixels = picture.pixels.copy()
    pixels[row, column] += 50
    return replace(picture, pixels=pixels, shown=pixels)


def test_the_difference_shows_changed_pixels_and_the_mask() -> None:
    source = picture_of(grey(30, 40))
    drawn = difference(source, edited(source, 12, 15), box_mask((30, 40), 10, 10, 20, 20))
    assert tuple(drawn[12, 15]) == tuple(np.array(CHANGED) * 180 // 255)
    assert tuple(drawn[10, 10]) == OUTLINE
    assert not drawn[11:19, 11:15].any()
    assert not drawn[:10].any()


def test_one_changed_pixel_of_a_large_picture_is_seen() -> None:
    source = picture_of(grey(40, 1000))
    drawn = difference(source, edited(source, 33, 777), box_mask((40, 1000), 0, 0, 5, 5), max_px=100)
    assert drawn.shape == (4, 100, 3)
    assert drawn[3, 77].any()
    assert np.count_nonzero(drawn[:, 10:].any(axis=-1)) == 1


def test_a_variant_is_held_as_a_box_and_given_back_whole() -> None:
    source = HeldSource(picture_of(grey(30, 40)), "grey.png")
    mask = box_mask((30, 40), 10, 12, 20, 18)
    result = edited(source.picture, 13, 11)
    variant = hold_variant(source, mask, result, seed=3)
    assert box_of(mask) == variant.box == (10, 12, 20, 18)
    assert variant.num_bytes == 7 * 10 * 6
    assert np.array_equal(variant.whole_mask, mask)
    assert encode_png(variant.picture) == encode_png(result)
    assert np.array_equal(decode_picture(encode_png(variant.picture), "result").shown, result.shown)
    assert source.picture.shown[13, 11, 0] == 100
