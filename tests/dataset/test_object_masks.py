"""Object masks: packed without loss, and placed at the box in a window of any size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.dataset.object_masks import object_in_window, pack_mask, unpack_mask

BOX = (13, 7, 40, 33)  # an image of 60 x 48 px


def disc() -> NDArray[np.bool_]:
    ys, xs = np.mgrid[0:48, 0:60]
    return np.asarray(((xs - 26) / 13.5) ** 2 + ((ys - 19.5) / 13) ** 2 <= 1)


def packed() -> bytes:
    return pack_mask(disc()[7:33, 13:40])


def test_a_mask_is_packed_without_loss() -> None:
    np.testing.assert_array_equal(unpack_mask(packed()), disc()[7:33, 13:40])
    with pytest.raises(ValueError, match="of 5 bytes is not a PNG"):
        unpack_mask(b"hello")


def test_in_an_unscaled_window_an_object_is_where_it_was_drawn() -> None:
    np.testing.assert_array_equal(object_in_window(packed(), BOX, (6, 0, 48), 48), disc()[:, 6:54])


@pytest.mark.parametrize("size", [24, 96])
def test_a_resized_window_leaves_out_no_pixel_of_the_object(size: int) -> None:
    shown = object_in_window(packed(), BOX, (6, 0, 48), size)
    step = size / 48
    assert shown is not None
    whole = (
        np.kron(disc()[:, 6:54], np.ones((2, 2))) if size > 48 else disc()[:, 6:54].reshape(24, 2, 24, 2).any((1, 3))
    )
    assert shown.dtype == np.uint8
    assert (shown >= whole).mean() > 0.97
    assert shown.sum() <= whole.sum() + 4 * np.pi * 14 * step


def test_an_object_is_cut_at_the_window_and_none_outside_it() -> None:
    np.testing.assert_array_equal(object_in_window(packed(), BOX, (20, 10, 30), 30), disc()[10:40, 20:50])
    assert object_in_window(packed(), BOX, (40, 33, 8), 16) is None
