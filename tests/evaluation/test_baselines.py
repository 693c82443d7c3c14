"""The baselines of the report: the pasted exemplar and the unchanged source."""

import numpy as np
from numpy.typing import NDArray

from pbe.evaluation.baselines import copy_paste, source
from pbe.evaluation.bench import Case


def case(mask: NDArray[np.float64]) -> Case:
    return Case(0, np.full((8, 8, 3), 10, np.uint8), mask.astype(np.uint8), np.full((3, 5, 3), 90, np.uint8))


def test_the_exemplar_fills_the_box_and_changes_no_other_pixel() -> None:
    mask = np.zeros((8, 8))
    mask[2:6, 3:8] = 1
    pasted = copy_paste(case(mask))
    assert (pasted[mask == 1] == 90).all()
    assert (pasted[mask == 0] == 10).all()


def test_inside_the_box_only_masked_pixels_change() -> None:
    mask = np.eye(8)
    pasted = copy_paste(case(mask))
    assert (pasted[np.eye(8) == 1] == 90).all()
    assert (pasted[np.eye(8) == 0] == 10).all()


def test_the_exemplar_is_pasted_upright() -> None:
    exemplar = np.zeros((4, 4, 3), np.uint8)
    exemplar[:2] = 255
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    pasted = copy_paste(Case(0, np.full((8, 8, 3), 10, np.uint8), mask, exemplar))
    assert pasted[:3, 4:].min() == 255
    assert pasted[5:, 4:].max() == 0


def test_the_source_baseline_returns_the_source_unchanged() -> None:
    c = case(np.ones((8, 8)))
    np.testing.assert_array_equal(source(c), c.source)
