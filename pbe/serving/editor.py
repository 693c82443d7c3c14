"""Edit one picture of any size: a square window around the mask is painted, and only masked pixels are put back.

    y = (1 - m) * x_s + m * up(paint(down(x_s), down(m), x_r))

The official code has no paste-back, so that colours drift everywhere (its issue #64); here pixels outside the mask are
the source's own bits. Masks are 1 = repaint.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps

from pbe.method.exemplars import Image, resize
from pbe.method.windows import Window

Mask = NDArray[np.uint8]
OnStep = Callable[[int, int], None]

MARGIN = 1.5  # the window's side over the mask's: the painter has to see what it paints into
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
    on_step: OnStep | None = None,
) -> Image:
    """Paint the exemplar's object into the masked part of the source.

    source (H, W, 3) and exemplar (h, w, 3) uint8 of any sizes, the exemplar resized to a square as in the official
    code; mask (H, W) 0/1. Returns (H, W, 3) uint8, bit-identical to the source where mask == 0. Raises ValueError when
    the mask has another size or marks nothing, or an option is out of range.
    """
    check_options(guidance_scale, num_steps, seed)
    check_mask(mask, source)
    window = edit_window(mask, painter.image_px)
    height, width = mask.shape
    patch = np.ix_(_reflected(window.top, window.side, height), _reflected(window.left, window.side, width))
    painted = painter.paint(
        resize(source[patch], painter.image_px, painter.image_px)[None],
        _resize_mask(mask[patch], painter.image_px)[None],
        resize(exemplar, painter.exemplar_px, painter.exemplar_px)[None],
        guidance_scale=guidance_scale,
        num_steps=num_steps,
        seeds=[seed],
        on_step=on_step,
    )
    return _paste(source, mask, resize(painted[0], window.side, window.side), window)


def edit_window(mask: Mask, image_px: int) -> Window:
    """The square to paint: around the mask's box with a margin, and not smaller than the painter's resolution.

    Inside the image wherever the box is not longer than the image's short side; else it reaches over the short
    sides, equally on both, by as much as it must.
    """
    x0, y0, x1, y1 = _mask_box(mask)
    height, width = mask.shape
    longest = max(x1 - x0, y1 - y0)
    side = max(longest, min(height, width, max(image_px, math.ceil(MARGIN * longest))))
    return Window(_place(x0, x1, side, width), _place(y0, y1, side, height), side)


def check_options(guidance_scale: float, num_steps: int, seed: int) -> None:
    """Raise ValueError naming the option and its value when one is out of range."""
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise ValueError(f"guidance scale is {guidance_scale:g}: give a number of 0 or more (1 is no guidance)")
    if not 1 <= num_steps <= MAX_STEPS:
        raise ValueError(f"number of steps is {num_steps}: give a whole number from 1 to {MAX_STEPS}")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}: give a whole number from 0 to {MAX_SEED}")


def check_mask(mask: Mask, source: Image, *, mask_name: str = "mask", source_name: str = "source") -> None:
    """Raise ValueError when the mask (H, W) is not the source's size, not 0/1, or marks no pixel."""
    if mask.shape != source.shape[:2]:
        raise ValueError(
            f"{mask_name} is {_size(mask)} but {source_name} is {_size(source)}: make the mask the source's size"
        )
    if mask.max(initial=0) > 1:
        raise ValueError(f"{mask_name} holds the value {mask.max()}: a mask is 0 or 1")
    if not mask.any():
        raise ValueError(f"{mask_name} marks nothing: paint white (above 127) where the picture is to be repainted")


def read_mask(file: Path | bytes, name: str | None = None) -> Mask:
    """Read a mask picture, (H, W) uint8: 1 (repaint) where its luminance is above 127 of 255, whatever its mode.

    Raises ValueError naming the file when it is missing or cannot be decoded.
    """
    name = name or (str(file) if isinstance(file, Path) else "mask")
    try:
        with PILImage.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            return (_luminance(picture) > 127).astype(np.uint8)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise ValueError(f"{name}: not a picture that can be read ({error})") from None


def _luminance(picture: PILImage.Image) -> NDArray[np.float32]:
    """Luminance on the scale of 0..255; alpha is left out of account."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # 16 bits, which Pillow would clip instead of scaling
        return np.asarray(upright, np.float32) / np.float32(257)
    if upright.mode == "P":
        upright = upright.convert("RGBA")
    return np.asarray(upright.convert("L"), np.float32)


def _mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """The smallest box that holds every marked pixel, xyxy."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _place(low: int, high: int, side: int, length: int) -> int:
    """Where a span of `side` starts that is centred on [low, high), and lies in 0..length if it can."""
    if side > length:
        return (length - side) // 2
    return min(max((low + high - side) // 2, 0), length - side)


def _reflected(start: int, side: int, length: int) -> NDArray[np.intp]:
    """Indices start..start + side, those outside 0..length reflected at its ends (as often as it takes)."""
    period = max(1, 2 * (length - 1))
    folded = np.abs(np.arange(start, start + side)) % period
    return np.asarray(np.minimum(folded, period - folded), np.intp)


def _resize_mask(mask: Mask, size_px: int) -> Mask:
    """Resize to (size_px, size_px); a pixel that covers any part of the mask is in it, so that none stays unpainted."""
    shrinking = mask.shape[0] > size_px
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_NEAREST
    share = cv2.resize(mask.astype(np.float32), (size_px, size_px), interpolation=interpolation)
    return (share > 1e-6).astype(np.uint8)


def _paste(source: Image, mask: Mask, painted: Image, window: Window) -> Image:
    """Put the masked pixels of the painted window, (side, side, 3), over a copy of the source."""
    height, width = mask.shape
    top, left = max(0, window.top), max(0, window.left)
    bottom, right = min(height, window.top + window.side), min(width, window.left + window.side)
    inside = painted[top - window.top : bottom - window.top, left - window.left : right - window.left]
    chosen = mask[top:bottom, left:right] == 1
    result = source.copy()
    result[top:bottom, left:right][chosen] = inside[chosen]
    return result


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
