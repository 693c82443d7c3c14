"""The page's pictures: reduced to what a screen shows, and encoded until all of them fit into a number of bytes.

A picture is kept at twice the width at which the page shows it, which is what a phone's display and a laptop's resolve.
Pictures that are small anyway are PNGs, without loss; all others are WebP. The same pictures give the same bytes.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as PillowImage

from pbe.types import Image

MAX_PIXEL_RATIO = 2.0  # of a picture to the width at which the page shows it
_SAMPLE_EVERY, _TOLERANCE = 8, 1.2  # a quality with which a sample is far too large is not tried on all pictures
_LOSSLESS_PX = 128  # longer side of the pictures that are PNGs where the budget allows


@dataclass(frozen=True)
class Quality:
    """How pictures are encoded: pixels for each pixel of the page, and WebP's quality, 0 to 100."""

    pixel_ratio: float
    webp: int
    lossless: bool = False


QUALITIES = (
    Quality(2.0, 88, lossless=True),
    Quality(2.0, 80),
    Quality(2.0, 65),
    Quality(1.5, 60),
    Quality(1.25, 45),
    Quality(1.0, 35),
)  # the first with which all pictures fit is used


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of at most twice `shown_px` in width and height, and what it shows; equal to itself alone."""

    image: Image
    shown_px: int
    alt: str


def reduced(image: Image, shown_px: int, alt: str) -> Picture:
    """Return a picture of `image`, reduced by area averaging; smaller images keep their size."""
    return Picture(fit(image, round(shown_px * MAX_PIXEL_RATIO)), shown_px, alt)


def encode_pictures(pictures: Sequence[Picture], max_bytes: int) -> list[str] | None:
    """Return a data URI for each picture, all together of at most `max_bytes`; None when no quality is low enough."""
    for quality in QUALITIES:
        sample = pictures[::_SAMPLE_EVERY]
        if sum(len(data_uri(p, quality)) for p in sample) * len(pictures) > _TOLERANCE * max_bytes * len(sample):
            continue
        uris = _encoded(pictures, quality, max_bytes)
        if uris is not None:
            return uris
    return None


def _encoded(pictures: Sequence[Picture], quality: Quality, max_bytes: int) -> list[str] | None:
    """Return the data URIs at one quality; None as soon as they take more than `max_bytes`."""
    uris: list[str] = []
    total = 0
    if max_bytes < 0:
        return None
    for picture in pictures:
        uris.append(data_uri(picture, quality))
        total += len(uris[-1])
        if total > max_bytes:
            return None
    return uris


def data_uri(picture: Picture, quality: Quality) -> str:
    """Return a picture as a data URI: a PNG without loss, or WebP."""
    image = fit(picture.image, round(picture.shown_px * quality.pixel_ratio))
    lossless = quality.lossless and max(image.shape[:2]) <= _LOSSLESS_PX
    out = io.BytesIO()
    if lossless:
        PillowImage.fromarray(image).save(out, format="PNG", optimize=True)
    else:
        PillowImage.fromarray(image).save(out, format="WEBP", quality=quality.webp, method=4)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def fit(image: Image, side_px: int) -> Image:
    """Reduce an image so that its longer side has at most `side_px`; a smaller one is returned as it is."""
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
