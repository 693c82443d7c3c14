"""Small copies of the images in files, for the FiftyOne App, which cannot read shards."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from pbe.runtime.files import atomic_file
from pbe.types import Image

Locate = Callable[[str, str], Path]  # (split, image_id) -> the thumbnail's file

LONG_SIDE_PX = 320
_QUALITY = 85


def thumbnail_path(home: Path, split: str, image_id: str) -> Path:
    """Return the file of an image's thumbnail below FiftyOne's folder `home`, in one of 256 folders for each split."""
    spread = hashlib.md5(image_id.encode(), usedforsecurity=False).hexdigest()[:2]
    return home / "thumbnails" / split / spread / f"{image_id}.jpg"


def write_thumbnail(path: Path, image: Image) -> None:
    """Write an (H, W, 3) uint8 RGB image as a JPEG whose longer side is at most LONG_SIDE_PX."""
    content = encode_jpeg(image, min(LONG_SIDE_PX, max(image.shape[:2])))
    with atomic_file(path) as part:
        part.write_bytes(content)


def encode_jpeg(image: Image, long_side_px: int) -> bytes:
    """Return an (H, W, 3) uint8 RGB image as a JPEG, resized so that its longer side is `long_side_px`."""
    scale = long_side_px / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    resized = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(resized).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
