"""Pictures as the page shows them: whole or around the mask, small enough for a phone, in the source's colours."""

import io

import cv2
import numpy as np
from PIL import Image as PillowImage

from pbe.serving.page.held import box_of
from pbe.serving.picture_metadata import fits
from pbe.serving.pictures import Picture
from pbe.types import Box, Image, Mask

MAX_VIEW_PX = 2048  # of the longer side
PREVIEW_PX = 448
MARGIN_FRAC = 0.6  # of the mask's longer side, shown around it in a close-up
CHANGED, OUTLINE = (255, 140, 0), (90, 160, 255)
_LOSSLESS_PX = 1024**2  # smaller views are PNG files


def encode_view(image: Image, profile: bytes | None = None, max_px: int = MAX_VIEW_PX) -> tuple[bytes, str]:
    """Return an image (H, W, 3), at most `max_px` wide and high, as the bytes of a file and its media type."""
    shown = PillowImage.fromarray(image)
    shown.thumbnail((max_px, max_px), PillowImage.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    icc_profile = profile if profile and fits(profile, "RGB") else None
    if shown.width * shown.height <= _LOSSLESS_PX:
        shown.save(stream, "PNG", compress_level=1, icc_profile=icc_profile)
        return stream.getvalue(), "image/png"
    shown.save(stream, "JPEG", quality=92, subsampling=0, icc_profile=icc_profile)
    return stream.getvalue(), "image/jpeg"


def encode_preview(image: Image, max_px: int = PREVIEW_PX) -> bytes:
    """Return the bytes of a small JPEG file of a picture that is being painted."""
    shown = PillowImage.fromarray(image)
    shown.thumbnail((max_px, max_px))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def encode_marks(mask: Mask) -> bytes:
    """Return the bytes of a PNG file that is white where a mask (H, W) is 1, and transparent elsewhere."""
    stream = io.BytesIO()
    levels = mask * np.uint8(255)
    PillowImage.fromarray(np.stack([levels, levels], axis=-1), "LA").save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def close_up_box(mask: Mask) -> Box:
    """Return the box of a close-up: the mask with a margin on each side, inside the picture."""
    left, top, right, bottom = box_of(mask)
    margin = max(16, round(MARGIN_FRAC * max(right - left, bottom - top)))
    height, width = mask.shape
    return max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin)


def crop(image: Image, box: Box) -> Image:
    """Return the part of an image (H, W, 3) inside a box."""
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def difference(source: Picture, edited: Picture, mask: Mask, max_px: int = MAX_VIEW_PX) -> Image:
    """Return a picture of what changed: unchanged pixels are black, changed ones orange, and the mask has an outline.

    A larger picture is reduced by the maximum over blocks, so that one changed pixel can be seen.
    """
    different = np.asarray(source.pixels != edited.pixels)
    changed = np.asarray(different.any(axis=-1) if different.ndim == 3 else different)
    amount = np.abs(source.shown.astype(np.int16) - edited.shown).max(axis=-1)
    level = np.where(changed, np.minimum(255, 80 + 2 * amount), 0).astype(np.uint8)
    factor = -(-max(mask.shape) // max_px)
    level, marks = _block_max(level, factor), _block_max(mask, factor)
    drawn = (level[..., None] * (np.array(CHANGED) / 255)).astype(np.uint8)
    contours, _ = cv2.findContours(marks, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, OUTLINE, max(1, max(marks.shape) // 500))
    return drawn


def _block_max(array: Mask, factor: int) -> Mask:
    height, width = (-(-side // factor) * factor for side in array.shape)
    padded = np.zeros((height, width), array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    return np.asarray(padded.reshape(height // factor, factor, width // factor, factor).max(axis=(1, 3)))
