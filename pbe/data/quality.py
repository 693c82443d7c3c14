"""What can be measured on one image: is it exposed, is it sharp, and is it the same picture as another one."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.settings import Curate

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

SHARPNESS_SIDE_PX = 64
THUMBNAIL_SIDE_PX = 32
_COARSE_SIGMA_PX = 1.5
_FLAT = 1e-5  # keeps the ratio finite on an image of one tone
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG


@dataclass(frozen=True)
class Quality:
    """The measures of one image.

    `brightness` is the mean luma, 0..1; `sharpness` is that of `sharpness()`; `pixels_md5` is equal exactly where
    shape and pixels are; `thumbnail` is (32, 32, 3) uint8.
    """

    brightness: float
    sharpness: float
    pixels_md5: str
    thumbnail: Image


def measure(image: Image) -> Quality:
    """Measure an (H, W, 3) uint8 RGB image."""
    luma = (image.astype(np.float32) @ _LUMA) / np.float32(255)
    return Quality(float(luma.mean()), sharpness(luma), pixels_md5(image), thumbnail(image))


def sharpness(luma: Floats) -> float:
    """Measure how much finer than 1.5 px the detail of (H, W) luma in 0..1 is, at a short side of 64 px:

        E[(Laplacian y)^2] / E[(Laplacian (G_1.5 * y))^2]

    Over 10 for a sharp picture, 2 to 5 for one blurred by 1.5 px. The variance of the Laplacian alone, the usual
    measure, takes a sharp scene of low contrast for a blurred one. Images smaller than 64 px are measured as they are.
    """
    scale = SHARPNESS_SIDE_PX / min(luma.shape)
    if scale < 1:
        size = (max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse = cv2.GaussianBlur(luma, (0, 0), _COARSE_SIGMA_PX)
    fine_energy, coarse_energy = (float(np.square(cv2.Laplacian(y, cv2.CV_32F)).mean()) for y in (luma, coarse))
    return fine_energy / (coarse_energy + _FLAT)


def pixels_md5(image: Image) -> str:
    """The MD5 of shape and pixels: two files of one picture agree, whatever their compression or metadata."""
    digest = hashlib.md5(repr(image.shape).encode(), usedforsecurity=False)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def thumbnail(image: Image) -> Image:
    """Shrink to (32, 32, 3) uint8 by averaging, whatever the aspect."""
    shrunk = cv2.resize(image, (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.uint8)


def fault(quality: Quality, settings: Curate) -> str:
    """Name what is wrong with an image by itself: dark, bright or blurred, the first that holds, or ""."""
    if quality.brightness < settings.min_brightness:
        return "dark"
    if quality.brightness > settings.max_brightness:
        return "bright"
    if quality.sharpness < settings.min_sharpness:
        return "blurred"
    return ""
