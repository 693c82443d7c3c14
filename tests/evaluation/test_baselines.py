"""The baselines of the report: the unchanged source, the pasted and the blended exemplar, and those with a model."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.evaluation.baselines import BASELINES, baseline_result
from pbe.evaluation.benches.bench import Case


def case(mask: NDArray[np.float64]) -> Case:
    return Case(0, np.full((8, 8, 3), 10, np.uint8), mask.astype(np.uint8), np.full((3, 5, 3), 90, np.uint8))


def test_the_exemplar_fills_the_box_and_changes_no_other_pixel() -> None:
    mask = np.zeros((8, 8))
    mask[2:6, 3:8] = 1
    pasted = baseline_result("copy_paste", 0, case(mask))
    assert (pasted[mask == 1] == 90).all()
    assert (pasted[mask == 0] == 10).all()


def test_inside_the_box_only_masked_pixels_change() -> None:
    pasted = baseline_result("copy_paste", 0, case(np.eye(8)))
    assert (pasted[np.eye(8) == 1] == 90).all()
    assert (pasted[np.eye(8) == 0] == 10).all()


def test_the_exemplar_is_pasted_upright() -> None:
    exemplar = np.zeros((4, 4, 3), np.uint8)
    exemplar[:2] = 255
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    pasted = baseline_result("copy_paste", 0, Case(0, np.full((8, 8, 3), 10, np.uint8), mask, exemplar))
    assert pasted[:3, 4:].min() == 255
    assert pasted[5:, 4:].max() == 0


def test_the_source_baseline_returns_the_source_unchanged() -> None:
    c = case(np.ones((8, 8)))
    np.testing.assert_array_equal(baseline_result("source", 0, c), c.source)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", ["all", "pixel", "specks", "box", "edge", "corner"])
def test_a_baseline_paints_any_mask_and_nothing_else(name: str, shape: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(1, 50, 2)
        mask = np.zeros((height, width), np.uint8)
        if shape == "specks":
            mask[rng.random((height, width)) < 0.05] = 1
        y, x = rng.integers(height), rng.integers(width)
        places = {"all": np.s_[:, :], "pixel": np.s_[y, x], "box": np.s_[y:, x:], "edge": np.s_[0, :]}
        mask[places.get(shape, np.s_[-1, -1])] = 1
        source, exemplar = (rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((height, width), (9, 7)))
        result = baseline_result(name, 0, Case(3, source, mask, exemplar))
        assert result.shape == source.shape
        np.testing.assert_array_equal(result[mask == 0], source[mask == 0])
        if name != "source":
            assert (result != source)[mask == 1].any(-1).mean() > 0.9 or mask.sum() < 20


def test_poisson_blending_solves_the_equation() -> None:
    """Jacobi's method on equation 4: gradients of the patch in the mask, and the source fixed two pixels around it."""
    rng = np.random.default_rng(0)
    source = cv2.GaussianBlur(rng.integers(0, 256, (40, 40, 3)).astype(np.float32), (0, 0), 6).astype(np.uint8)
    exemplar = cv2.GaussianBlur(rng.integers(0, 256, (16, 16, 3)).astype(np.float32), (0, 0), 2).astype(np.uint8)
    mask, free = np.zeros((2, 40, 40), np.uint8)
    mask[10:26, 12:28] = free[8:28, 10:30] = 1
    fixed, patch = source.astype(float), source.astype(float)
    patch[6:30, 8:32] = cv2.copyMakeBorder(exemplar, 4, 4, 4, 4, cv2.BORDER_REPLICATE)
    laplacian = np.zeros_like(fixed)
    for axis in (0, 1):
        steps = (np.roll(image, -1, axis) - image for image in (patch, fixed))
        gradient = np.where(mask[..., None] == 1, *steps)
        laplacian += gradient - np.roll(gradient, 1, axis)
    expected = fixed.copy()
    for _ in range(4000):
        around = sum(np.roll(expected, shift, axis) for axis in (0, 1) for shift in (-1, 1))
        expected[free == 1] = ((around - laplacian) / 4)[free == 1]
    blended = baseline_result("poisson", 0, Case(0, source, mask, exemplar))
    assert np.abs(blended - expected)[mask == 1].max() <= 1  # OpenCV rounds down
    assert np.abs(blended - fixed)[mask == 1].mean() > 3
