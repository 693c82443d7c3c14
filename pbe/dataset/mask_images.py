"""Mask files in: whatever a file holds, the project gets (H, W) of 0 and 1, where 1 = repaint.

A pixel is marked where its luminance is above half of the scale. The scale is 0..1 when no level is above 1, as in
NumPy masks and floats; otherwise it is 0..255, or 0..65535 when a level is above 255. Two kinds of masks say it in
another way, and are read so when no pixel, or every pixel, is bright:

- Where the opacity differs between pixels, it decides: opaque pixels are marked. Drawing programs save layers of one
  colour so.
- In a palette image whose first colour is black, every other index is marked. Label images are saved so.

Where pixels are bright and transparent as well as bright and opaque, only the opaque ones are marked if they are the
majority, as around a soft brush; otherwise the file is refused, because nothing says which of the two is meant. Where
all bright pixels are transparent, colour decides.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.opened_images import DAMAGED, is_sixteen_bit, opened_image, read_bytes_of, reason_of, upright
from pbe.errors import UserError
from pbe.types import Mask

_NUMERIC_MODES = ("I", "F")  # 32-bit integers and floats
_INDIRECT_MODES = frozenset(("P", "PA", "La", "RGBa"))  # a palette, or colours multiplied by their opacity

Marks = NDArray[np.bool_]


def read_mask(path: Path) -> Mask:
    """Decode a mask file to (H, W) uint8 of 0 and 1, upright as its EXIF orientation says.

    Raises UserError naming the file when it is missing, damaged or ambiguous, and RefusedImageError when its kind is
    not supported.
    """
    return decode_mask(read_bytes_of(path), path)


def decode_mask(data: bytes, name: object) -> Mask:
    """Decode the bytes of a mask file as `read_mask` does; errors call the mask `name`."""
    with opened_image(io.BytesIO(data), str(name), _NUMERIC_MODES) as opened:
        try:
            opened.load()
            image = upright(opened)
            luminance, opacity = _luminance(image), _opacity(image)
        except DAMAGED as error:
            raise UserError(f"{name}: cannot be decoded as an image: {reason_of(error)}") from None
        indices = np.asarray(image) if _begins_with_black(image) else None
    if not np.isfinite(luminance).all():
        raise UserError(f"{name}: holds NaN or infinite values; a mask is black and white")
    return _marked(luminance, opacity, indices, name).astype(np.uint8)


def _marked(
    luminance: NDArray[np.float32], opacity: NDArray[np.uint8] | None, indices: NDArray[np.uint8] | None, name: object
) -> Marks:
    bright = luminance > _threshold(luminance)
    is_plain = bright.any() and not bright.all()
    if opacity is not None:
        opaque = opacity > 127
        if not is_plain and opaque.any() and not opaque.all():
            return opaque
        if is_plain:
            return _visible(bright, opaque, name)
    if indices is not None and not bright.any():
        return indices > 0
    return bright


def _visible(bright: Marks, opaque: Marks, name: object) -> Marks:
    """Return which of the bright pixels are meant; see the module's description."""
    num_bright, num_visible = int(bright.sum()), int((bright & opaque).sum())
    if num_visible in (0, num_bright):
        return bright
    if 2 * num_visible < num_bright:
        raise UserError(
            f"{name}: is ambiguous, because {num_bright - num_visible} of its {num_bright} white pixels are "
            "transparent; save it without transparency"
        )
    return bright & opaque


def _threshold(luminance: NDArray[np.float32]) -> float:
    highest = luminance.max(initial=0)
    return 0.5 if highest <= 1 else 127 if highest <= 255 else 127 * 257


def _luminance(image: PillowImage.Image) -> NDArray[np.float32]:
    """Return the luminance on the file's own scale, without regard to opacity."""
    if is_sixteen_bit(image) or image.mode in _NUMERIC_MODES:
        return np.asarray(image, np.float32)
    if image.mode == "1":
        return np.asarray(image, np.float32) * np.float32(255)
    grey = (image.convert("RGBA") if image.mode in _INDIRECT_MODES else image).convert("L")
    return np.asarray(grey, np.float32)


def _opacity(image: PillowImage.Image) -> NDArray[np.uint8] | None:
    return np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None


def _begins_with_black(image: PillowImage.Image) -> bool:
    return image.mode == "P" and (image.getpalette("RGB") or [255])[:3] == [0, 0, 0]
