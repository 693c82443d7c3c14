"""Edit one image of any size, with any mask and any exemplar. In masks 1 = repaint."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION, cut_close_up, put_back
from pbe.method.exemplars import resize
from pbe.types import Image, Mask, Progress

MAX_STEPS = 1000  # the diffusion's number of timesteps
MAX_SEED = 2**63 - 1


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
        exemplars: NDArray[np.uint8],
        *,
        guidance_scale: float = 5.0,
        num_steps: int = 50,
        seeds: Sequence[int],
        on_step: Progress | None = None,
    ) -> NDArray[np.uint8]: ...


def edit(
    painter: SupportsPaint,
    source: Image,
    mask: Mask,
    exemplar: Image,
    *,
    guidance_scale: float = 5.0,
    num_steps: int = 50,
    seed: int = 0,
    max_magnification: float = MAX_MAGNIFICATION,
    on_step: Progress | None = None,
) -> Image:
    """Paint the exemplar's object into the masked part of the source.

    source (H, W, 3) and exemplar (h, w, 3) are uint8 of any sizes; the exemplar is resized to a square, as in the
    official code. mask (H, W) is 0/1; a small one is magnified by up to `max_magnification` (see `close_up`). Returns
    (H, W, 3) uint8, bit-identical to the source where mask == 0. Raises UserError when the mask has another size or
    marks nothing, or an option is out of range.
    """
    check_options(guidance_scale, num_steps, seed, max_magnification)
    check_mask(mask, source)
    close = cut_close_up(source, mask, painter.image_px, max_magnification)
    painted = painter.paint(
        close.source[None],
        close.mask[None],
        resize(exemplar, painter.exemplar_px, painter.exemplar_px)[None],
        guidance_scale=guidance_scale,
        num_steps=num_steps,
        seeds=[seed],
        on_step=on_step,
    )
    return put_back(source, mask, painted[0], close.window)


def check_options(
    guidance_scale: float, num_steps: int, seed: int, max_magnification: float = MAX_MAGNIFICATION
) -> None:
    """Raise UserError naming the first option that is out of range, and its value."""
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise UserError(f"guidance scale is {guidance_scale:g}: give a number of 0 or more (1 is no guidance)")
    if not 1 <= num_steps <= MAX_STEPS:
        raise UserError(f"number of steps is {num_steps}: give a whole number from 1 to {MAX_STEPS}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed}: give a whole number from 0 to {MAX_SEED}")
    if not 1 <= max_magnification <= 16:
        raise UserError(f"magnification is {max_magnification:g}: give a number from 1 (none) to 16")


def check_mask(mask: Mask, source: Image, *, mask_name: str = "mask", source_name: str = "source") -> None:
    """Raise UserError when the mask (H, W) has another size than the source, is not 0/1, or marks no pixel."""
    if mask.shape != source.shape[:2]:
        raise UserError(f"{mask_name} is {_size(mask)} but {source_name} is {_size(source)}: give both the same size")
    if mask.max(initial=0) > 1:
        raise UserError(f"{mask_name} holds the value {mask.max()}: a mask is 0 or 1")
    if not mask.any():
        raise UserError(f"{mask_name} marks nothing: make it white (above 127) where to repaint the source")


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
