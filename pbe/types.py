"""The types that every layer shares. Boxes are `xyxy` pixels, the far side exclusive, unless a name says `_frac`."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Mask = NDArray[np.uint8]  # (H, W), 1 = repaint, 0 = keep
Box = tuple[int, int, int, int]  # x0, y0, x1, y1


class Progress(Protocol):
    """Reports how far a loop is, with an optional note such as the loss."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


ProgressBars = Callable[[str], Progress]  # the name of a progress bar -> its callback


def no_progress(done: int, total: int, note: str = "") -> None:
    """Report nothing."""


def no_progress_bars(name: str) -> Progress:
    """Return bars that report nothing."""
    return no_progress
