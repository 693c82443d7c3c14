"""Small copies of the images as files of their own, for the FiftyOne App, which shows files."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.runtime.files import atomic_file

LONG_SIDE_PX = 320
_QUALITY = 85


def thumbnail_path(home: Path, split: str, image_id: str) -> Path:
    """Where the thumbnail of an image lies in FiftyOne's folder, in one of 256 folders a split."""
    spread = hashlib.md5(image_id.encode(), usedforsecurity=False).hexdigest()[:2]
    return home / "thumbnails" / split / spread / f"{image_id}.jpg"


def write_thumbnail(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG whose longer side is LONG_SIDE_PX at most."""
    scale = min(1.0, LONG_SIDE_PX / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    with atomic_file(path) as part:
        PillowImage.fromarray(small).save(part, "JPEG", quality=_QUALITY)
