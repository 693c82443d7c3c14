"""Small edits, and a painter that waits: for tests of the queue."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbe.serving.editor import Edit, EditOptions, Editor, Exemplar, Region, SupportsPaint, picture_of
from pbe.serving.service.dispatcher import Dispatcher

DEADLINE_S = 60


def small_edit(seed: int = 0, *, num_steps: int = 2, num_regions: int = 1, side: int = 48) -> Edit:
    """Return an edit of a picture (side, 3 * side) with noise; regions lie far apart."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (side, 3 * side, 3), dtype=np.uint8)
    mask = np.zeros(source.shape[:2], np.uint8)
    for number in range(num_regions):
        left = number * side + 4
        mask[4:14, left : left + 8] = 1
    return Edit(
        picture_of(source), (Region(mask, (Exemplar(source[:20, :20]),)),), seed, EditOptions(num_steps=num_steps)
    )


class Gated:
    """A painter that waits for its gate, fails where it should, and records the seeds of each call."""

    def __init__(self, painter: SupportsPaint) -> None:
        self.painter, self.image_px, self.exemplar_px = painter, painter.image_px, painter.exemplar_px
        self.gate, self.entered = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []
        self.errors: dict[int, BaseException] = {}  # by seed
        self.most = 100  # more windows raise MemoryError

    def paint(self, *arrays: Any, seeds: Sequence[int], **options: Any) -> NDArray[np.uint8]:
        self.entered.set()
        assert self.gate.wait(DEADLINE_S)
        self.calls.append(list(seeds))
        for seed in seeds:
            if seed in self.errors:
                raise self.errors[seed]
        if len(seeds) > self.most:
            raise MemoryError
        return self.painter.paint(*arrays, seeds=seeds, **options)


@contextmanager
def gated(dispatcher: Dispatcher) -> Iterator[Gated]:
    """Put a gate, closed at first, before the default model's painter."""
    editor: Editor = dispatcher.models.resolve(None).editor
    painter = editor.painter
    editor.painter = gate = Gated(painter)
    try:
        yield gate
    finally:
        gate.gate.set()
        editor.painter = painter
