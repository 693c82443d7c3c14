"""The editor: edit one picture of any size, with any number of masks and exemplars. In masks 1 = repaint.

Command line, page, service, batches and the served model all paint through `Editor`, so that the same edit has the same
bits through each of them. An edit is done in three parts, which those who batch the windows of several users call one
by one: `prepare` checks it and cuts a square window for each region of its masks, `paint` paints windows, and `finish`
puts them back. Only `paint` uses the model; one thread at a time runs it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.method.regions import put_back_regions
from pbe.serving.edit_checks import (
    MAX_GUIDANCE_SCALE,
    MAX_SEED,
    MAX_STEPS,
    SAMPLERS,
    check_image,
    check_mask,
    check_options,
    check_seed,
)
from pbe.serving.edit_defaults import DEFAULT_SAMPLER, DEFAULT_STEPS
from pbe.serving.edit_files import read_exemplar, read_mask, read_source
from pbe.serving.edit_windows import PaintWindow, Prepared, cut_windows, mask_notes
from pbe.serving.edits import (
    MAX_EXEMPLARS,
    Edit,
    Edited,
    EditOptions,
    Exemplar,
    Region,
    check_edit,
    picture_of,
)
from pbe.serving.pictures import count_changed, edited_picture
from pbe.types import Image, Progress

__all__ = [
    "DEFAULT_SAMPLER", "DEFAULT_STEPS", "MAX_BATCH", "MAX_EXEMPLARS", "MAX_GUIDANCE_SCALE", "MAX_SEED", "MAX_STEPS",
    "SAMPLERS", "Cancelled", "Edit", "EditOptions", "Edited", "Editor", "Exemplar", "PaintWindow", "Prepared", "Region",
    "SupportsPaint", "check_image", "check_mask", "check_options", "check_seed", "mask_notes", "picture_of",
    "read_exemplar", "read_mask", "read_source",
]  # fmt: skip

MAX_BATCH = 4  # windows that are painted together
POLL_S = 0.05  # how often a waiting edit asks whether it was cancelled

OnSquares = Callable[[list[Image]], None]


class SupportsPaint(Protocol):
    """The part of pbe.method.painter.Painter that the editor uses."""

    @property
    def image_px(self) -> int: ...

    @property
    def exemplar_px(self) -> int: ...

    def paint(
        self,
        sources: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        exemplars: Sequence[NDArray[np.uint8]],
        *,
        guidance_scale: float,
        num_steps: int,
        seeds: Sequence[int],
        on_step: Progress | None = None,
        on_preview: Callable[[NDArray[np.uint8]], None] | None = None,
        sampler: str,
        guidance_interval: tuple[float, float] | None = None,
    ) -> NDArray[np.uint8]: ...


class Cancelled(Exception):  # noqa: N818  # not an error
    """The caller's `cancelled()` returned True; nothing was painted."""


class Editor:
    """Edits pictures with a painter. Threads may share an editor; `max_batch` windows are painted together."""

    def __init__(self, painter: SupportsPaint, *, max_batch: int = MAX_BATCH) -> None:
        self.painter = painter
        self.max_batch = max_batch
        self._turn = threading.Lock()

    def edit(
        self,
        edit: Edit,
        *,
        on_step: Progress | None = None,
        on_preview: Callable[[Image], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Edited:
        """Paint every region; the result is bit-identical to the source outside of the masks.

        `on_preview` is called every few steps with the whole picture (H, W, 3) as it would look now. Raises UserError
        for an edit that cannot be painted, and Cancelled within a step of `cancelled()` returning True.
        """
        prepared = self.prepare(edit)
        squares = self.paint_all(prepared, on_step=on_step, on_preview=on_preview, cancelled=cancelled)
        return self.finish(prepared, squares)

    def paint_all(
        self,
        prepared: Prepared,
        *,
        on_step: Progress | None = None,
        on_preview: Callable[[Image], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Image]:
        """Return the painted squares of an edit, one for each window; see `edit`."""
        starts = range(0, len(prepared.windows), self.max_batch)
        squares: list[Image] = []
        for number, start in enumerate(starts):
            squares += self.paint(
                prepared.windows[start : start + self.max_batch],
                on_step=on_step and _part_of(on_step, number, len(starts)),
                on_preview=on_preview and self._shown(prepared, list(squares), on_preview),
                cancelled=cancelled,
            )
        return squares

    def prepare(self, edit: Edit) -> Prepared:
        """Check an edit and cut its windows; raises UserError for one that cannot be painted."""
        check_edit(edit)
        return cut_windows(edit, self.painter.image_px, self.painter.exemplar_px)

    def paint(
        self,
        windows: Sequence[PaintWindow],
        *,
        on_step: Progress | None = None,
        on_preview: OnSquares | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Image]:
        """Return the painted squares (S, S, 3) of at most `max_batch` windows of one group.

        `on_preview` is called every few steps with the squares as they would look now (see `show`).
        """
        assert 0 < len(windows) <= self.max_batch, f"{len(windows)} windows, at most {self.max_batch}"
        guidance_scale, num_steps, sampler, guidance_interval = windows[0].group
        assert all(window.group == windows[0].group for window in windows), "windows of several groups"
        with _turn_of(self._turn, cancelled):
            painted = self.painter.paint(
                np.stack([window.source for window in windows]),
                np.stack([window.mask for window in windows]),
                [window.exemplars for window in windows],
                guidance_scale=guidance_scale,
                num_steps=num_steps,
                seeds=[window.seed for window in windows],
                on_step=_checking(on_step, cancelled),
                on_preview=on_preview and (lambda squares: on_preview(list(squares))),
                sampler=sampler,
                guidance_interval=guidance_interval,
            )
        return list(painted)

    def show(self, prepared: Prepared, squares: Sequence[Image | None]) -> Image:
        """Return the picture (H, W, 3) with these painted squares; None leaves a window as the source is."""
        return put_back_regions(prepared.edit.source.shown, prepared.regions, squares)

    def finish(self, prepared: Prepared, squares: Sequence[Image]) -> Edited:
        """Put the painted squares, one for each window, back into the picture."""
        source, kept = prepared.edit.source, prepared.regions.mask
        picture = edited_picture(source, self.show(prepared, squares), kept)
        return Edited(picture, prepared.notes, count_changed(source, picture, kept))

    def _shown(self, prepared: Prepared, done: list[Image], on_preview: Callable[[Image], None]) -> OnSquares:
        def show(squares: list[Image]) -> None:
            missing = [None] * (len(prepared.windows) - len(done) - len(squares))
            on_preview(self.show(prepared, [*done, *squares, *missing]))

        return show


@contextmanager
def _turn_of(lock: threading.Lock, cancelled: Callable[[], bool] | None) -> Iterator[None]:
    """Hold the lock; raise Cancelled when `cancelled()` returns True before it is free."""
    while not lock.acquire(timeout=POLL_S if cancelled else -1):
        if cancelled and cancelled():
            raise Cancelled
    try:
        if cancelled and cancelled():
            raise Cancelled
        yield
    finally:
        lock.release()


def _checking(on_step: Progress | None, cancelled: Callable[[], bool] | None) -> Progress | None:
    """Return `on_step`, which raises Cancelled first when `cancelled()` returns True."""
    if cancelled is None:
        return on_step

    def step(done: int, total: int, note: str = "") -> None:
        if cancelled():
            raise Cancelled
        if on_step:
            on_step(done, total)

    return step


def _part_of(on_step: Progress, number: int, num_batches: int) -> Progress:
    def show(done: int, total: int, note: str = "") -> None:
        on_step(number * total + done, num_batches * total)

    return show
