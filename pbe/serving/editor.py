"""Edit one picture of any size with masks, files and options as people give them. Masks are 1 = repaint."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps

from pbe.errors import UserError
from pbe.method.close_up import MAX_MAGNIFICATION, Mask, cut_close_up, put_back
from pbe.method.exemplars import Image, resize

OnStep = Callable[[int, int], None]

MAX_STEPS = 1000  # the diffusion's own number of timesteps
MAX_SEED = 2**63 - 1


class Paints(Protocol):
    """What the editor needs of pbe.method.painter.Painter."""

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
        on_step: OnStep | None = None,
    ) -> NDArray[np.uint8]: ...


def edit(
    painter: Paints,
    source: Image,
    mask: Mask,
    exemplar: Image,
    *,
    guidance_scale: float = 5.0,
    num_steps: int = 50,
    seed: int = 0,
    max_magnification: float = MAX_MAGNIFICATION,
    on_step: OnStep | None = None,
) -> Image:
    """Paint the exemplar's object into the masked part of the source.

    source (H, W, 3) and exemplar (h, w, 3) uint8 of any sizes, the exemplar resized to a square as in the official
    code; mask (H, W) 0/1, small ones magnified (see `close_up`). Returns (H, W, 3) uint8, bit-identical to the source
    where mask == 0. Raises UserError when the mask has another size or marks nothing, or an option is out of range.
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
    """Raise UserError naming the option and its value when one is out of range."""
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise UserError(f"guidance scale is {guidance_scale:g}: give a number of 0 or more (1 is no guidance)")
    if not 1 <= num_steps <= MAX_STEPS:
        raise UserError(f"number of steps is {num_steps}: give a whole number from 1 to {MAX_STEPS}")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed is {seed}: give a whole number from 0 to {MAX_SEED}")
    if not 1 <= max_magnification <= 16:
        raise UserError(f"magnification is {max_magnification:g}: give a number from 1 (none) to 16")


def check_mask(mask: Mask, source: Image, *, mask_name: str = "mask", source_name: str = "source") -> None:
    """Raise UserError when the mask (H, W) is not the source's size, not 0/1, or marks no pixel."""
    if mask.shape != source.shape[:2]:
        raise UserError(
            f"{mask_name} is {_size(mask)} but {source_name} is {_size(source)}: make the mask the source's size"
        )
    if mask.max(initial=0) > 1:
        raise UserError(f"{mask_name} holds the value {mask.max()}: a mask is 0 or 1")
    if not mask.any():
        raise UserError(f"{mask_name} marks nothing: paint white (above 127) where the picture is to be repainted")


def read_mask(file: Path | bytes, name: str | None = None) -> Mask:
    """Read a mask picture, (H, W) uint8: 1 (repaint) where its luminance is above 127 of 255, whatever its mode.

    Raises UserError naming the file when it is missing or cannot be decoded.
    """
    name = name or (str(file) if isinstance(file, Path) else "mask")
    try:
        with PILImage.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            return (_luminance(picture) > 127).astype(np.uint8)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise UserError(f"{name}: not a picture that can be read ({error})") from None


def _luminance(picture: PILImage.Image) -> NDArray[np.float32]:
    """Luminance on the scale of 0..255; alpha is left out of account."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # 16 bits, which Pillow would clip instead of scaling
        return np.asarray(upright, np.float32) / np.float32(257)
    if upright.mode == "P":
        upright = upright.convert("RGBA")
    return np.asarray(upright.convert("L"), np.float32)


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
