"""The editor: edit one picture of any size, with any number of masks and exemplars. In masks 1 = repaint.

Command line, page, service, batches and the served model all paint through `Editor`, so that the same edit has the same
bits through each of them. An edit is done in three parts, which those who batch the windows of several users call one
by one: `prepare` checks it and cuts a square window for each region of its masks, `paint` paints windows, and `finish`
puts them back. Only `paint` uses the model; one thread at a time runs it.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.mask_images import decode_mask
from pbe.dataset.opened_images import read_bytes_of
from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION
from pbe.method.masked_exemplars import cut_exemplar
from pbe.method.regions import (
    Regions,
    cut_regions,
    find_regions,
    join_regions,
    put_back_regions,
    region_boxes,
    region_seeds,
)
from pbe.serving.edit_checks import (
    MAX_GUIDANCE_SCALE,
    MAX_SEED,
    MAX_STEPS,
    check_context,
    check_image,
    check_mask,
    check_options,
    check_sampling,
    check_seed,
)
from pbe.serving.picture_metadata import Metadata
from pbe.serving.pictures import Picture, count_changed, decode_picture, edited_picture
from pbe.types import Box, Image, Mask, Progress

__all__ = [
    "DEFAULT_STEPS", "MAX_BATCH", "MAX_GUIDANCE_SCALE", "MAX_SEED", "MAX_STEPS", "Cancelled", "Edit", "EditOptions",
    "Edited", "Editor", "Exemplar", "PaintWindow", "Prepared", "Region", "SupportsPaint", "check_image", "check_mask",
    "check_options", "edit", "edit_picture", "mask_notes", "picture_of", "read_exemplar", "read_mask", "read_source",
]  # fmt: skip

DEFAULT_STEPS = 50
MAX_BATCH = 4  # windows that are painted together
MAX_EXEMPLARS = 16  # of one object
POLL_S = 0.05  # how often a waiting edit asks whether it was cancelled

Squares = Sequence[Image]
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


@dataclass(frozen=True, eq=False)
class Exemplar:
    """A picture (h, w, 3) of the object to paint, of any size. What is not in the mask (h, w) is not looked at."""

    image: Image
    mask: Mask | None = None


@dataclass(frozen=True, eq=False)
class Region:
    """Where to paint, (H, W), and pictures of the one object to paint there."""

    mask: Mask
    exemplars: tuple[Exemplar, ...]


@dataclass(frozen=True)
class EditOptions:
    """How to paint."""

    guidance_scale: float = 5.0  # similarity to the exemplar, 0 to 50; 1 is no guidance
    num_steps: int = DEFAULT_STEPS
    sampler: str = "plms"
    guidance_interval: tuple[float, float] | None = None  # noise levels, low < sigma_t <= high; None: all
    max_magnification: float = MAX_MAGNIFICATION  # how far a small mask is magnified for painting, 1 to 16
    context_px: int | None = None  # pixels of the source that a window shows around a mask; None: a quarter of its side

    def check(self) -> None:
        """Raise UserError naming the first option that is out of range, and its value."""
        check_options(self.guidance_scale, self.num_steps, 0, self.max_magnification)
        check_sampling(self.sampler, self.guidance_interval)
        check_context(self.context_px)


@dataclass(frozen=True, eq=False)
class Edit:
    """What to paint into which picture. The regions may not overlap."""

    source: Picture
    regions: tuple[Region, ...]
    seed: int = 0
    options: EditOptions = EditOptions()


@dataclass(frozen=True, eq=False)
class Edited:
    """The edited picture, what the user should know of how it was painted, and how many other pixels changed (0)."""

    picture: Picture
    notes: tuple[str, ...]
    num_changed_outside: int

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the shape as text, such as (3000, 4000, 3), followed by the pixels."""
        pixels = np.ascontiguousarray(self.picture.pixels)
        digest = hashlib.sha256(str(pixels.shape).encode())
        digest.update(pixels.data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class PaintWindow:
    """A square to paint, (S, S, 3), its mask (S, S), and the exemplars' squares (K, e, e, 3).

    Windows whose `group` is equal may be painted together, also those of different edits.
    """

    source: Image
    mask: Mask
    exemplars: NDArray[np.uint8]
    seed: int
    group: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A checked edit with its windows, and the box of what each window repaints, numbered by the edit's region."""

    edit: Edit
    regions: Regions
    windows: tuple[PaintWindow, ...]
    boxes: tuple[tuple[int, Box], ...]
    notes: tuple[str, ...]


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
        starts = range(0, len(prepared.windows), self.max_batch)
        squares: list[Image] = []
        for number, start in enumerate(starts):
            squares += self.paint(
                prepared.windows[start : start + self.max_batch],
                on_step=on_step and _part_of(on_step, number, len(starts)),
                on_preview=on_preview and self._shown(prepared, list(squares), on_preview),
                cancelled=cancelled,
            )
        return self.finish(prepared, squares)

    def prepare(self, edit: Edit) -> Prepared:
        """Check an edit and cut its windows; raises UserError for one that cannot be painted."""
        edit.options.check()
        check_seed(edit.seed)
        check_image(edit.source.shown, "source")
        _check_regions(edit)
        options, image_px = edit.options, self.painter.image_px
        found = [
            find_regions(region.mask.astype(np.uint8), image_px, options.max_magnification, options.context_px)
            for region in edit.regions
        ]
        regions = join_regions(found)
        owners = [number for number, each in enumerate(found) for _ in each.windows]
        squares = [_exemplar_squares(region, self.painter.exemplar_px) for region in edit.regions]
        cuts = cut_regions(edit.source.shown, regions, image_px)
        group = (options.guidance_scale, options.num_steps, options.sampler, options.guidance_interval)
        windows = tuple(
            PaintWindow(cut.source, cut.mask, squares[owner], seed, group)
            for cut, owner, seed in zip(cuts, owners, region_seeds(edit.seed, regions), strict=True)
        )
        boxes = tuple(zip(owners, region_boxes(regions), strict=True))
        return Prepared(edit, regions, windows, boxes, tuple(_mask_notes(found)))

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


def picture_of(image: Image) -> Picture:
    """Return an array (H, W, 3) uint8 as a picture without metadata; raises UserError for another kind of array."""
    check_image(image, "source")
    return Picture(image, image, "RGB", Metadata(), ())


def _check_regions(edit: Edit) -> None:
    """Raise UserError when a mask or an exemplar is not one, or masks overlap; with several regions it has a number."""
    if not edit.regions:
        raise UserError("the edit has no region: give a mask and an exemplar")
    covered = np.zeros(edit.source.shown.shape[:2], bool)
    for number, region in enumerate(edit.regions, 1):
        where = f" of region {number}" if len(edit.regions) > 1 else ""
        _check_exemplars(region, where)
        check_mask(region.mask, edit.source.shown, mask_name=f"mask{where}")
        marked = region.mask.astype(bool)
        if (covered & marked).any():
            raise UserError(_overlap(edit.regions, number))
        covered |= marked


def _check_exemplars(region: Region, where: str) -> None:
    if not 1 <= len(region.exemplars) <= MAX_EXEMPLARS:
        raise UserError(f"{len(region.exemplars)} exemplars{where}: give 1 to {MAX_EXEMPLARS} pictures of the object")
    for number, exemplar in enumerate(region.exemplars, 1):
        name = f"exemplar {number}{where}" if len(region.exemplars) > 1 else f"exemplar{where}"
        check_image(exemplar.image, name)
        if exemplar.mask is not None:
            check_mask(
                exemplar.mask, exemplar.image, mask_name=f"mask of {name}", source_name=name, use="the object is"
            )


def _overlap(regions: Sequence[Region], last: int) -> str:
    for number, region in enumerate(regions[: last - 1], 1):
        if count := int((region.mask.astype(bool) & regions[last - 1].mask.astype(bool)).sum()):
            return f"regions {number} and {last} overlap in {count} pixels: give each pixel to one region"
    raise AssertionError("no region overlaps")


def _exemplar_squares(region: Region, side: int) -> NDArray[np.uint8]:
    return np.stack([cut_exemplar(exemplar.image, exemplar.mask, side) for exemplar in region.exemplars])


def _mask_notes(found: Sequence[Regions]) -> list[str]:
    """Return what the user should know of how masks are painted: specks that are left out, and many regions."""
    notes = []
    if num_specks := sum(each.num_specks for each in found):
        specks = f"{num_specks} specks" if num_specks > 1 else "1 speck"
        speck_px = found[0].speck_px
        notes.append(f"not painted: {specks} of the mask, at most {speck_px} x {speck_px} px")
    if (num_windows := sum(len(each.windows) for each in found)) > len(found):
        notes.append(f"the mask has {num_windows} regions; each gets its own object (--preview shows them)")
    return notes


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


def edit(
    painter: SupportsPaint,
    source: Image,
    mask: Mask,
    exemplar: Image,
    *,
    seed: int = 0,
    on_step: Progress | None = None,
    **options: Any,
) -> Image:
    """Paint the exemplar's object into the masked part of an array (H, W, 3); see `Editor.edit`."""
    picture = picture_of(source)
    return edit_picture(painter, picture, mask, exemplar, seed=seed, on_step=on_step, **options).shown


def edit_picture(
    painter: SupportsPaint,
    source: Picture,
    mask: Mask,
    exemplar: Image,
    *,
    seed: int = 0,
    on_step: Progress | None = None,
    **options: Any,
) -> Picture:
    """Paint into a picture with one mask and one exemplar; see `Editor.edit`."""
    region = Region(mask, (Exemplar(exemplar),))
    return Editor(painter).edit(Edit(source, (region,), seed, EditOptions(**options)), on_step=on_step).picture


def read_mask(file: Path | bytes, name: str | None = None) -> Mask:
    """Read a mask from a file or its bytes; raises what `pbe.dataset.mask_images.read_mask` raises."""
    return decode_mask(_bytes_of(file), name or _name_of(file, "mask"))


def read_source(file: Path | bytes, name: str | None = None) -> Picture:
    """Read a source from a file or its bytes; raises what `pbe.dataset.images.read_image` raises."""
    return decode_picture(_bytes_of(file), name or _name_of(file, "source"))


def read_exemplar(file: Path | bytes, name: str | None = None) -> Image:
    """Read an exemplar, over white; raises UserError as `read_source` does, and when it is fully transparent."""
    name = name or _name_of(file, "exemplar")
    picture = decode_picture(_bytes_of(file), name)
    if picture.mode in ("RGBA", "LA") and not picture.pixels[..., -1].any():
        raise UserError(f"{name} is fully transparent: give an image that shows the object")
    return picture.shown


def mask_notes(mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION) -> list[str]:
    """Return what the user should know of how a mask is painted: specks that are left out, and many regions."""
    return _mask_notes([find_regions(mask, image_px, max_magnification)])


def _bytes_of(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else read_bytes_of(file)


def _name_of(file: Path | bytes, default: str) -> str:
    return default if isinstance(file, bytes) else str(file)
