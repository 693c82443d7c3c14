"""The preview of an edit."""

import numpy as np

from pbe.serving.preview import DROPPED, REPAINTED, WINDOW, preview


def test_repainted_pixels_specks_and_windows_are_drawn() -> None:
    source, mask = np.zeros((600, 600, 3), np.uint8), np.zeros((600, 600), np.uint8)
    mask[40:100, 40:100] = mask[500:560, 500:560] = mask[300, 10] = 1
    drawn = preview(source, [mask], 64, 2.0)
    assert drawn[70, 70].argmax() == np.argmax(REPAINTED)
    assert (drawn[300, 10] > 0).tolist() == [True, True, False] == [value > 0 for value in DROPPED]
    assert tuple(drawn[25, 70]) == WINDOW
    assert tuple(drawn[485, 530]) == WINDOW
    assert not drawn[300, 300].any()
    assert not source.any()


def test_a_window_may_reach_over_the_edge() -> None:
    mask = np.ones((20, 200), np.uint8)
    assert preview(np.zeros((20, 200, 3), np.uint8), [mask], 64, 2.0).shape == (20, 200, 3)


def test_windows_are_those_of_each_mask_with_its_context() -> None:
    source, masks = np.zeros((200, 200, 3), np.uint8), [np.zeros((200, 200), np.uint8) for _ in range(2)]
    masks[0][90:100, 80:99] = masks[1][90:100, 101:120] = 1  # together one region
    separate, wide = (preview(source, masks, 64, 16.0, context_px) for context_px in (4, 60))
    together = preview(source, [np.maximum(*masks)], 64, 16.0, 4)
    outer, inner = [76, 123], [97]  # columns of the windows' sides
    assert (separate[95, outer + inner] == WINDOW).all()
    assert (together[95, outer] == WINDOW).all()
    assert not (together[95, inner] == WINDOW).any()
    assert (separate == WINDOW).all(-1).any(1).sum() < (wide == WINDOW).all(-1).any(1).sum()
