"""An edit: a picture, masks (1 = repaint), exemplars and options, and what comes out of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION
from pbe.serving.edit_checks import (
    check_context,
    check_image,
    check_mask,
    check_options,
    check_sampling,
    check_seed,
)
from pbe.serving.edit_defaults import DEFAULT_INTERVAL, DEFAULT_SAMPLER, DEFAULT_STEPS
from pbe.serving.picture_metadata import Metadata
from pbe.serving.pictures import Picture
from pbe.types import Image, Mask

MAX_EXEMPLARS = 16  # of one object


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
    sampler: str = DEFAULT_SAMPLER
    guidance_interval: tuple[float, float] | None = DEFAULT_INTERVAL  # noise levels, low < sigma_t <= high; None: all
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


def picture_of(image: Image) -> Picture:
    """Return an array (H, W, 3) uint8 as a picture without metadata; raises UserError for another kind of array."""
    check_image(image, "source")
    return Picture(image, image, "RGB", Metadata(), ())


def check_edit(edit: Edit) -> None:
    """Raise UserError for an edit that cannot be painted."""
    edit.options.check()
    check_seed(edit.seed)
    check_image(edit.source.shown, "source")
    check_regions(edit)


def check_regions(edit: Edit) -> None:
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
