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
_BLACK = 0.04  # of full scale: ten levels
MEASURES = ("brightness", "sharpness", "dark_frac", "bright_frac")  # the numbers of `Quality`


@dataclass(frozen=True)
class Quality:
    """The measures of one image.

    `brightness` is the mean luma, 0..1; `sharpness` is that of `sharpness()`; `dark_frac` and `bright_frac` are the
    shares of pixels that are nearly black and nearly white; `pixels_sha256` is equal exactly where shape and pixels
    are; `thumbnail` is (32, 32, 3) uint8.
    """

    brightness: float
    sharpness: float
    dark_frac: float
    bright_frac: float
    pixels_sha256: str
    thumbnail: Image


def measure(image: Image) -> Quality:
    """Measure an (H, W, 3) uint8 RGB image."""
    luma = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY) / np.float32(255)  # BT.601, as in JPEG
    dark, bright = float((luma < _BLACK).mean()), float((luma > 1 - _BLACK).mean())
    return Quality(float(luma.mean()), sharpness(luma), dark, bright, pixels_sha256(image), thumbnail(image))


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


def pixels_sha256(image: Image) -> str:
    """The SHA-256 of shape and pixels: two files of one picture agree, whatever their compression or metadata."""
    digest = hashlib.sha256(repr(image.shape).encode())
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
