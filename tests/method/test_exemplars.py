"""Crops of exemplars and their augmentation."""

import numpy as np
import pytest

from pbe.method.exemplars import Change, apply_change, augment_exemplar, crop_exemplar, resize, resize_fast
from pbe.types import Image
from tests.support import parameters

NEVER = {"flip_probability": 0, "rotate_probability": 0, "blur_probability": 0, "elastic_probability": 0}


def picture(side: int = 32) -> Image:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_crop_takes_the_padded_box_and_stops_at_the_image() -> None:
    image = picture(40)
    np.testing.assert_array_equal(crop_exemplar(image, (10, 10, 20, 20), 0.1, 12), image[9:21, 9:21])
    np.testing.assert_array_equal(crop_exemplar(image, (0, 0, 10, 10), 0.1, 11), image[0:11, 0:11])


def test_a_box_outside_is_refused_by_its_numbers() -> None:
    with pytest.raises(ValueError, match=r"\(50, 50, 60, 60\) holds no pixel of a 40 x 40 image"):
        crop_exemplar(picture(40), (50, 50, 60, 60), 0.0, 8)


def test_without_probabilities_nothing_changes() -> None:
    out = augment_exemplar(picture(), parameters.augmentation(**NEVER), np.random.default_rng(0))
    np.testing.assert_array_equal(out, picture())


def test_flip_mirrors() -> None:
    out = augment_exemplar(
        picture(), parameters.augmentation(**NEVER | {"flip_probability": 1}), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(out, picture()[:, ::-1])


def test_rotation_stays_within_its_limit() -> None:
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 64, 0)
    image = np.stack([ramp] * 3, -1)
    augmentation = parameters.augmentation(**NEVER | {"rotate_probability": 1, "max_rotation_deg": 20})
    rng = np.random.default_rng(0)
    angles = []
    for _ in range(200):
        middle = augment_exemplar(image, augmentation, rng)[24:40, 24:40, 0].astype(float)
        gy, gx = np.gradient(middle)
        angles.append(np.degrees(np.arctan2(gy.mean(), gx.mean())))
    assert 17 < np.abs(angles).max() < 21
    assert abs(np.mean(angles)) < 2


def test_the_elastic_transform_moves_pixels_unlike_the_official_one() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::8] = 255
    augmentation = parameters.augmentation(**NEVER | {"elastic_probability": 1})
    out = augment_exemplar(image, augmentation, np.random.default_rng(0))
    assert np.abs(out.astype(float) - image).mean() > 5


def test_blur_smooths() -> None:
    augmentation = parameters.augmentation(**NEVER | {"blur_probability": 1, "max_blur_frac": 0.05})
    out = augment_exemplar(picture(), augmentation, np.random.default_rng(0))
    assert np.diff(out.astype(float), axis=1).var() < np.diff(picture().astype(float), axis=1).var()


def test_the_same_generator_gives_the_same_exemplar() -> None:
    a, b = (augment_exemplar(picture(), parameters.augmentation(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (50, 70)])
def test_resize_keeps_the_mean(size: tuple[int, int]) -> None:
    smooth = np.full((32, 32, 3), 77, np.uint8)
    assert resize(smooth, *size).shape == (*size, 3)
    assert (resize(smooth, *size) == 77).all()


@pytest.mark.parametrize("size", [(512, 512), (224, 224), (100, 300), (900, 200)])
def test_fast_resizing_is_resizing(size: tuple[int, int]) -> None:
    waves = np.sin(np.mgrid[0:768, 0:768].sum(0) / 20)[..., None].repeat(3, -1) * 100 + 128
    image = waves.astype(np.uint8)
    fast, slow = resize_fast(image, *size), resize(image, *size)
    assert fast.shape == slow.shape
    assert np.abs(fast.astype(int) - slow).mean() < 1.5


def test_fast_resizing_leaves_small_images_their_bits() -> None:
    np.testing.assert_array_equal(resize_fast(picture(50), 32, 32), resize(picture(50), 32, 32))


def test_a_warp_moves_pixels_by_its_flow_and_turns_about_the_centre() -> None:
    image, side = picture(9), 9
    flow = np.zeros((side, side, 2), np.float32)
    flow[..., 0] = 2  # every pixel takes the one two columns to its right
    shifted = apply_change(image, Change(flip=False, angle_deg=None, flow=flow, blur_px=None))
    np.testing.assert_array_equal(shifted[:, :7], image[:, 2:])
    down = apply_change(image, Change(flip=False, angle_deg=None, flow=flow[..., ::-1], blur_px=None))
    np.testing.assert_array_equal(down[:7], image[2:])
    turned = apply_change(image, Change(flip=False, angle_deg=90.0, flow=None, blur_px=None))
    np.testing.assert_array_equal(turned, np.rot90(image, -1))  # clockwise


def test_an_image_grows_bilinearly_and_shrinks_by_area() -> None:
    image = np.array([[[0] * 3, [100] * 3]], np.uint8)
    assert resize(image, 1, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    wide = np.repeat(np.array([0, 10, 20, 200], np.uint8)[None, :, None], 3, 2)
    assert resize(wide, 1, 2)[0, :, 0].tolist() == [5, 110]


def test_a_crop_is_resized_fast_only_on_request() -> None:
    image = picture(300)
    usual, fast = (crop_exemplar(image, (0, 0, 300, 300), 0.0, 70, fast) for fast in (False, True))
    np.testing.assert_array_equal(usual, resize(image, 70, 70))
    np.testing.assert_array_equal(fast, resize_fast(image, 70, 70))
    np.testing.assert_array_equal(crop_exemplar(image, (0, 0, 300, 300), 0.0, 70), usual)
    assert (usual != fast).any()
