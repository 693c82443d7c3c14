"""Checks of an edit's images, masks and options: each raises UserError with what is wrong and what to give instead."""

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION
from pbe.serving.edit_defaults import Sampler
from pbe.types import Image, Mask

MAX_STEPS = 1000  # the diffusion's number of timesteps
MAX_SEED = 2**63 - 1
MAX_GUIDANCE_SCALE = 50  # far above what any model is used with; beyond it every colour saturates
MAX_CONTEXT_PX = 100_000
SAMPLERS = get_args(Sampler)


def check_options(
    guidance_scale: float, num_steps: int, seed: int, max_magnification: float = MAX_MAGNIFICATION
) -> None:
    """Raise UserError naming the first option that is out of range, and its value."""
    if not 0 <= guidance_scale <= MAX_GUIDANCE_SCALE:  # NaN is refused as well
        limits = f"from 0 to {MAX_GUIDANCE_SCALE} (1 is no guidance)"
        raise UserError(f"guidance scale is {guidance_scale:g}: give a number {limits}")
    if not (isinstance(num_steps, int | np.integer) and 1 <= num_steps <= MAX_STEPS):
        raise UserError(f"number of steps is {num_steps}: give a whole number from 1 to {MAX_STEPS}")
    check_seed(seed)
    if not 1 <= max_magnification <= 16:
        raise UserError(f"magnification is {max_magnification:g}: give a number from 1 (none) to 16")


def check_seed(seed: int) -> None:
    """Raise UserError unless the seed is a whole number from 0 to 2^63 - 1."""
    if not (isinstance(seed, int | np.integer) and 0 <= seed <= MAX_SEED):
        raise UserError(f"seed is {seed}: give a whole number from 0 to {MAX_SEED}")


def check_context(context_px: int | None) -> None:
    """Raise UserError unless the context is None or a whole number of pixels."""
    if context_px is None:
        return
    if not (isinstance(context_px, int | np.integer) and 0 <= context_px <= MAX_CONTEXT_PX):
        raise UserError(f"context is {context_px} px: give a whole number from 0 to {MAX_CONTEXT_PX}")


def check_sampling(sampler: str, guidance_interval: tuple[float, float] | None) -> None:
    """Raise UserError for an unknown sampler, or an interval of noise levels that is empty or no pair of numbers."""
    if sampler not in SAMPLERS:
        raise UserError(f"sampler is {sampler}: give one of {', '.join(SAMPLERS)}")
    if guidance_interval is None:
        return
    low, high = guidance_interval
    if not 0 <= low < high:  # NaN is refused as well
        raise UserError(f"guidance interval is {low:g} to {high:g}: give two noise levels, 0 <= low < high")


def check_image(image: Image, name: str) -> None:
    """Raise UserError unless an image is an array (H, W, 3) of uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name} is {type(image).__name__}: give a NumPy array (H, W, 3) of uint8")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(f"{name} is {image.shape} of {image.dtype}: give (H, W, 3) uint8, RGB from 0 to 255")


def check_mask(
    mask: Mask,
    source: Image,
    *,
    mask_name: str = "mask",
    source_name: str = "source",
    use: str = "to repaint the source",
) -> None:
    """Raise UserError when the mask (H, W) has another size than the source, is not 0/1, or marks no pixel."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "bui":
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
        raise UserError(f"{mask_name} is {kind}: give a NumPy array (H, W) of uint8, 0 or 1, or of bool")
    if mask.shape != source.shape[:2]:
        if mask.ndim != 2:
            raise UserError(f"{mask_name} has the shape {mask.shape}: give (H, W)")
        raise UserError(f"{mask_name} is {_size(mask)} but {source_name} is {_size(source)}: give both the same size")
    if mask.max(initial=0) > 1 or mask.min(initial=0) < 0:
        worst = mask.max() if mask.max() > 1 else mask.min()
        raise UserError(f"{mask_name} holds the value {worst}: a mask is 0 or 1")
    if not mask.any():
        raise UserError(f"{mask_name} marks nothing: make it white (above 127) where {use}")


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
