"""Objects' shapes: packed without loss, and put where the box is in a window of any size."""

import numpy as np
import pytest

from pbe.dataset.object_masks import object_in_window, pack_mask, unpack_mask

BOX = (13, 7, 40, 33)  # an image of 60 x 48 px


def disc() -> np.ndarray:
    ys, xs = np.mgrid[0:48, 0:60]
    return ((xs - 26) / 13.5) ** 2 + ((ys - 19.5) / 13) ** 2 <= 1


def packed() -> bytes:
    return pack_mask(disc()[7:33, 13:40])


def test_a_mask_is_packed_without_loss():
    np.testing.assert_array_equal(unpack_mask(packed()), disc()[7:33, 13:40])
    with pytest.raises(ValueError, match="of 5 bytes is no PNG"):
        unpack_mask(b"hello")


def test_at_its_own_size_an_object_lies_where_it_was_drawn():
    np.testing.assert_array_equal(object_in_window(packed(), BOX, (6, 0, 48), 48), disc()[:, 6:54])


@pytest.mark.parametrize("size", [24, 96])
def test_in_a_resized_window_no_pixel_of_it_is_left_out(size):
    shown = object_in_window(packed(), BOX, (6, 0, 48), size)
    step = size / 48
    whole = (
        np.kron(disc()[:, 6:54], np.ones((2, 2))) if size > 48 else disc()[:, 6:54].reshape(24, 2, 24, 2).any((1, 3))
    )
    assert shown.dtype == np.uint8
    assert (shown >= whole).mean() > 0.97
    assert shown.sum() <= whole.sum() + 4 * np.pi * 14 * step


def test_what_lies_outside_the_window_is_cut_or_none():
    np.testing.assert_array_equal(object_in_window(packed(), BOX, (20, 10, 30), 30), disc()[10:40, 20:50])
    assert object_in_window(packed(), BOX, (40, 33, 8), 16) is None
