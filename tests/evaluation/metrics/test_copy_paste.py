"""The copy-paste score finds an affine copy of the exemplar, and little in other pictures."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pbe.demo.scenes import draw_scene
from pbe.evaluation.metrics.copy_paste import _warped_correlation, copy_paste_score, correlation

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]

MASK = np.zeros((64, 64), np.uint8)
MASK[10:50, 8:56] = 1


def picture(seed: int, height: int = 40, width: int = 48) -> Image:
    scene = draw_scene(np.random.default_rng(seed), max_objects=1, rare_kinds=False)
    x0, y0, x1, y1 = scene.objects[0].box
    return np.asarray(cv2.resize(scene.image[y0:y1, x0:x1], (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def pasted(region: Image, seed: int = 99, mask: Mask = MASK) -> Image:
    source = cv2.resize(picture(seed), mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    y0, x0 = np.argwhere(mask)[0]
    result = np.asarray(source, np.uint8)
    result[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]] = region
    return result


def affine(angle_deg: float, scale: float, shift_px: float, height: int = 40, width: int = 48) -> NDArray[np.float64]:
    warp = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, scale), np.float64)
    warp[:, 2] += shift_px
    return warp


def moved(image: Image, angle_deg: float, scale: float, shift_px: float) -> Image:
    height, width = image.shape[:2]
    warp = affine(angle_deg, scale, shift_px, height, width)
    return np.asarray(cv2.warpAffine(image, warp, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def test_the_correlation_is_numpys_for_a_grey_picture() -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 20), dtype=np.uint8)
    first, second = (np.repeat(v.reshape(4, 5, 1), 3, axis=2) for v in (a, b))
    everywhere = np.ones((4, 5), np.bool_)
    assert correlation(first, second, everywhere) == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_the_correlation_of_two_channels_by_hand() -> None:
    first, second = np.zeros((2, 1, 2, 3), np.uint8)
    first[0, :, 0], first[0, :, 1] = (0, 20), (10, 10)  # centred: -10, 10 and 0, 0
    second[0, :, 0], second[0, :, 1] = (0, 20), (0, 20)  # centred: -10, 10 twice
    assert correlation(first, second, np.ones((1, 2), np.bool_)) == pytest.approx(200 / np.sqrt(200 * 400))


@pytest.mark.parametrize("size", [(40, 48), (25, 30), (160, 96)])
def test_a_pasted_exemplar_scores_100(size: tuple[int, int]) -> None:
    exemplar = picture(0, *size)
    region = cv2.resize(exemplar, (48, 40), interpolation=cv2.INTER_AREA)
    assert copy_paste_score(pasted(np.asarray(region, np.uint8)), MASK, exemplar) > 97


def test_a_change_of_light_and_a_mirror_image_are_copies() -> None:
    exemplar = picture(1)
    for region in (exemplar // 2 + 30, exemplar[:, ::-1]):
        assert copy_paste_score(pasted(region.astype(np.uint8)), MASK, exemplar) > 98


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.floats(-15, 15), st.floats(0.85, 1.2), st.floats(-4, 4))
def test_a_fit_is_never_worse_than_its_start(seed: int, angle_deg: float, scale: float, shift_px: float) -> None:
    exemplar = picture(seed)
    region = moved(exemplar, angle_deg, scale, shift_px)
    score = copy_paste_score(pasted(region), MASK, exemplar)
    stretched = 100 * max(
        correlation(region, each, np.ones((40, 48), np.bool_)) for each in (exemplar, exemplar[:, ::-1])
    )
    assert score >= stretched - 1e-6


def test_most_affine_copies_score_as_with_their_true_map() -> None:
    rng, everywhere = np.random.default_rng(0), np.ones((40, 48), np.uint8)
    short_of_true = []
    for seed in range(100):
        exemplar, motion = picture(seed), (rng.uniform(-15, 15), rng.uniform(0.85, 1.2), rng.uniform(-4, 4))
        region = moved(exemplar, *motion)
        true_map = cv2.invertAffineTransform(affine(*motion)).astype(np.float32)
        true_score = 100 * _warped_correlation(region, everywhere, exemplar, true_map)
        short_of_true.append(true_score - copy_paste_score(pasted(region), MASK, exemplar))
    assert np.mean(np.array(short_of_true) < 5) >= 0.9


def test_copies_score_higher_than_other_objects() -> None:
    exemplars = [picture(seed) for seed in range(12)]
    copies = [copy_paste_score(pasted(moved(e, 10, 1.0, 2)), MASK, e) for e in exemplars]
    others = [copy_paste_score(pasted(picture(seed + 100)), MASK, e) for seed, e in enumerate(exemplars)]
    assert np.mean(copies) > 90
    assert np.mean(others) < 50


def test_only_masked_pixels_count() -> None:
    exemplar, ring = picture(2), MASK.copy()
    ring[20:40, 20:44] = 0
    result = pasted(exemplar)
    result[ring == 0] = 0
    assert copy_paste_score(result, ring, exemplar) > 98


def test_flat_regions_and_exemplars_score_0() -> None:
    flat = np.full((40, 48, 3), 77, np.uint8)
    assert copy_paste_score(pasted(flat), MASK, picture(3)) == 0.0
    assert copy_paste_score(pasted(picture(3)), MASK, flat) == 0.0


@pytest.mark.parametrize("box", [(5, 5, 6, 6), (0, 3, 64, 4), (0, 0, 64, 64)])
def test_any_mask_has_a_score(box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    mask = np.zeros((64, 64), np.uint8)
    mask[y0:y1, x0:x1] = 1
    score = copy_paste_score(picture(4, 64, 64), mask, picture(5))
    assert 0 <= score <= 100


def test_the_score_is_the_same_at_any_number_of_threads() -> None:
    exemplar, result = picture(6), pasted(moved(picture(6), 8, 1.0, 1))
    before = cv2.getNumThreads()
    scores = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        scores.append(copy_paste_score(result, MASK, exemplar))
    cv2.setNumThreads(before)
    assert scores[0] == scores[1]


def test_what_a_region_shows_beyond_the_exemplar_is_not_copied() -> None:
    exemplar, other = picture(7), picture(8, 40, 24)
    squeezed = cv2.resize(exemplar, (24, 40), interpolation=cv2.INTER_AREA)
    region = np.concatenate([squeezed, other], axis=1)
    warp = np.array([[2, 0, 0.5], [0, 1, 0]], np.float32)  # the left half is the exemplar, the right half beyond it
    share = _warped_correlation(region, np.ones((40, 48), np.uint8), exemplar, warp)
    deviations = [np.square(part - part.mean((0, 1))).sum() for part in (squeezed.astype(float), region.astype(float))]
    assert share == pytest.approx(np.sqrt(deviations[0] / deviations[1]), abs=0.03)
    assert share < 0.9
