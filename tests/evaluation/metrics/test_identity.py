"""Identity and the pictures of an object alone."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from pbe.evaluation.metrics.identity import crop, identity_scores, show_object


def test_identity_is_100_times_scipys_cosine_similarity() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    expected = [100 * (1 - cosine(first, second)) for first, second in zip(a, b, strict=True)]
    assert identity_scores(a, b) == pytest.approx(expected, abs=1e-4)


def test_a_crop_holds_the_last_row_and_column_of_the_box() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    np.testing.assert_array_equal(crop(image, (1, 2, 5, 4)), image[2:4, 1:5])


def test_only_the_object_is_shown() -> None:
    image = np.full((2, 4, 3), 9, np.uint8)
    shown = show_object(image, np.array([[1, 0, 0, 1], [0, 0, 0, 0]], np.uint8))
    assert (shown[0, [0, 3]] == 9).all()
    assert (shown[0, 1:3] == 127).all()
    assert (shown[1] == 127).all()


def test_a_mask_of_another_size_is_resized() -> None:
    shown = show_object(np.zeros((4, 4, 3), np.uint8), np.array([[1, 0], [0, 0]], np.uint8))
    assert (shown[:2, :2] == 0).all()
    assert (shown[2:] == 127).all()
