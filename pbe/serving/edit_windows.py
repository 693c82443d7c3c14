"""The square windows of an edit: cut out of its picture for the painter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbe.method.close_up import MAX_MAGNIFICATION
from pbe.method.masked_exemplars import cut_exemplar
from pbe.method.regions import Regions, cut_regions, find_regions, join_regions, region_boxes, region_seeds
from pbe.serving.edits import Edit, Region
from pbe.types import Box, Image, Mask


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


def cut_windows(edit: Edit, image_px: int, exemplar_px: int) -> Prepared:
    """Cut the windows of an edit that `edits.check_edit` accepts, in squares of `image_px` and `exemplar_px`."""
    options = edit.options
    found = [
        find_regions(region.mask.astype(np.uint8), image_px, options.max_magnification, options.context_px)
        for region in edit.regions
    ]
    regions = join_regions(found)
    owners = [number for number, each in enumerate(found) for _ in each.windows]
    squares = [_exemplar_squares(region, exemplar_px) for region in edit.regions]
    cuts = cut_regions(edit.source.shown, regions, image_px)
    group = (options.guidance_scale, options.num_steps, options.sampler, options.guidance_interval)
    windows = tuple(
        PaintWindow(cut.source, cut.mask, squares[owner], seed, group)
        for cut, owner, seed in zip(cuts, owners, region_seeds(edit.seed, regions), strict=True)
    )
    boxes = tuple(zip(owners, region_boxes(regions), strict=True))
    return Prepared(edit, regions, windows, boxes, tuple(_notes(found)))


def mask_notes(mask: Mask, image_px: int, max_magnification: float = MAX_MAGNIFICATION) -> list[str]:
    """Return what the user should know of how a mask is painted: specks that are left out, and many regions."""
    return _notes([find_regions(mask, image_px, max_magnification)])


def _exemplar_squares(region: Region, side: int) -> NDArray[np.uint8]:
    return np.stack([cut_exemplar(exemplar.image, exemplar.mask, side) for exemplar in region.exemplars])


def _notes(found: Sequence[Regions]) -> list[str]:
    """Return what the user should know of how masks are painted: specks that are left out, and many regions."""
    notes = []
    if num_specks := sum(each.num_specks for each in found):
        specks = f"{num_specks} specks" if num_specks > 1 else "1 speck"
        speck_px = found[0].speck_px
        notes.append(f"not painted: {specks} of the mask, at most {speck_px} x {speck_px} px")
    if (num_windows := sum(len(each.windows) for each in found)) > len(found):
        masks = "the masks have" if len(found) > 1 else "the mask has"
        notes.append(f"{masks} {num_windows} regions; each gets its own object")
    return notes
