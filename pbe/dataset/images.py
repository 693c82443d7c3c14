"""Image files in and out: whatever a file holds, the project gets (H, W, 3) uint8 RGB, upright.

OpenCV decodes plain JPEGs (`plain_jpegs`); Pillow decodes every other file. Both use libjpeg-turbo and return the same
bits, but OpenCV writes them straight into the array, which saves a copy. `opened_images` says which files are refused,
and `mask_images` decodes masks.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.opened_images import (
    DAMAGED,
    RefusedImageError,
    is_sixteen_bit,
    opened_image,
    orientation_of,
    read_bytes_of,
    reason_of,
    upright,
)
from pbe.dataset.plain_jpegs import decode_plain_jpeg, plain_jpeg_size
from pbe.dataset.png_text import without_text
from pbe.errors import UserError
from pbe.types import Image

__all__ = [
    "RefusedImageError", "decode_image", "eight_bits", "encoded_size", "has_sixteen_bits", "image_orientation",
    "image_size", "read_image", "read_levels", "to_rgb",
]  # fmt: skip


def read_image(path: Path, reduction: int = 1) -> Image:
    """Decode a complete image file to (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    With `reduction` 2, 4 or 8 both sides are divided by it and rounded up; JPEGs are then decoded at that scale.
    Greyscale, palette, CMYK and 16-bit files become RGB; transparent pixels are composited over white.
    Raises UserError naming the file when it is missing, truncated or not an image, and RefusedImageError when its kind
    is not supported.
    """
    return decode_image(read_bytes_of(path), path, reduction)


def decode_image(data: bytes, name: object, reduction: int = 1) -> Image:
    """Decode the bytes of an image file as `read_image` does; errors call the image `name`."""
    plain = decode_plain_jpeg(data, reduction)
    if plain is not None:
        return plain
    image = eight_bits(_load(data, name, to_rgb)).convert("RGB")
    return np.array(image.reduce(reduction) if reduction > 1 else image, np.uint8)


def read_levels(path: Path) -> NDArray[np.int64]:
    """Decode a picture whose pixels are numbers, such as a label image, to (H, W) int64; 0 is the background.

    A greyscale picture gives its levels, and a palette whose first colour is black gives its indices. In other
    pictures a pixel is R + 256 G + 65536 B, or its level when the whole picture is grey; where any pixel is
    transparent, opaque pixels are 1 and all others 0. Raises what `read_image` raises.
    """
    image = _load(read_bytes_of(path), path, _keep_levels)
    if image.mode != "RGBA":
        return np.asarray(image).astype(np.int64)
    rgba = np.asarray(image).astype(np.int64)
    if rgba[..., 3].min() < 255:
        return (rgba[..., 3] > 127).astype(np.int64)
    is_grey = (rgba[..., :3] == rgba[..., :1]).all()
    return rgba[..., 0] if is_grey else rgba[..., :3] @ np.array([1, 256, 65536])


def image_size(file: Path | BinaryIO, name: str = "") -> tuple[int, int]:
    """Return the (width, height) of the image that `read_image` would return, from the file's header alone.

    Raises the errors of `read_image` that the header shows.
    """
    with opened_image(file, name or str(file)) as opened:
        width, height = opened.size
        return (height, width) if orientation_of(opened) >= 5 else (width, height)


def image_orientation(file: Path | BinaryIO, name: str = "") -> int:
    """Return an image's EXIF orientation, 1..8; raises what `image_size` raises."""
    with opened_image(file, name or str(file)) as opened:
        return orientation_of(opened)


def has_sixteen_bits(path: Path) -> bool:
    """Return whether an image's pixels are 16-bit levels; raises what `image_size` raises."""
    with opened_image(path, str(path)) as opened:
        return is_sixteen_bit(opened)


def encoded_size(data: bytes, name: object) -> tuple[int, int]:
    """Return the (width, height) of the image that `decode_image` would return; raises what `image_size` raises.

    Four times as fast as `image_size` for a plain JPEG, which Pillow does not have to open.
    """
    plain = plain_jpeg_size(data)
    return (plain[1], plain[0]) if plain else image_size(io.BytesIO(data), str(name))


def _load(data: bytes, name: object, convert: Callable[[PillowImage.Image], PillowImage.Image]) -> PillowImage.Image:
    """Decode as `_load_once` does; a PNG whose text Pillow refuses is decoded without its text."""
    try:
        return _load_once(data, name, convert)
    except RefusedImageError:
        raise
    except UserError:
        if (shorter := without_text(data)) is data:
            raise
        return _load_once(shorter, name, convert)


def _load_once(
    data: bytes, name: object, convert: Callable[[PillowImage.Image], PillowImage.Image]
) -> PillowImage.Image:
    """Decode the pixels, turn them upright and convert them; `convert` calls Pillow only, whose errors are the file's.

    Raises UserError when the pixels are truncated or damaged, and what `opened_image` raises.
    """
    with opened_image(io.BytesIO(data), str(name)) as opened:
        try:
            opened.load()
            return convert(upright(opened))
        except DAMAGED as error:
            raise UserError(f"{name}: cannot be decoded as an image: {reason_of(error)}") from None


def to_rgb(image: PillowImage.Image) -> PillowImage.Image:
    """Convert to RGB over white; 16-bit pixels, which Pillow would clip, are left to `eight_bits`."""
    if is_sixteen_bit(image):
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = PillowImage.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PillowImage.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _keep_levels(image: PillowImage.Image) -> PillowImage.Image:
    """Convert to RGBA, unless a pixel is a level or an index of a palette that begins with black."""
    starts_black = image.mode == "P" and (image.getpalette("RGB") or [0])[:3] == [0, 0, 0]
    return image if image.mode in ("1", "L") or is_sixteen_bit(image) or starts_black else image.convert("RGBA")


def eight_bits(image: PillowImage.Image) -> PillowImage.Image:
    """Scale 16-bit levels to 8 bits, rounded; return any other image unchanged."""
    if not is_sixteen_bit(image):
        return image
    levels = np.asarray(image).astype(np.float64) / 257
    return PillowImage.fromarray(np.clip(levels.round(), 0, 255).astype(np.uint8))
