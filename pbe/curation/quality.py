"""Measures of a single image: exposure, sharpness, and a digest and a thumbnail to find duplicates by."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.settings import Curate
from pbe.types import Image

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

    `brightness` is the mean luma, 0..1; `sharpness` is explained at `sharpness()`; `dark_frac` and `bright_frac` are
    the fractions of nearly black and nearly white pixels; `pixels_sha256` is a digest of shape and pixels; `thumbnail`
    is (32, 32, 3) uint8.
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
    """Return the energy of fine over coarse detail of (H, W) luma in 0..1, at a short side of 64 px:

        E[(Laplacian y)^2] / E[(Laplacian (G_1.5 * y))^2]

    It is over 10 for a sharp image, and 2 to 5 for one blurred by 1.5 px. The usual measure, the variance of the
    Laplacian, mistakes a sharp scene of low contrast for a blurred one. Images smaller than 64 px are not enlarged.
    """
    scale = SHARPNESS_SIDE_PX / min(luma.shape)
    if scale < 1:
        size = (max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    coarse = cv2.GaussianBlur(luma, (0, 0), _COARSE_SIGMA_PX)
    fine_energy, coarse_energy = (float(np.square(cv2.Laplacian(y, cv2.CV_32F)).mean()) for y in (luma, coarse))
    return fine_energy / (coarse_energy + _FLAT)


def pixels_sha256(image: Image) -> str:
    """Return the SHA-256 of shape and pixels: files with equal pixels agree, whatever their format or metadata."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def thumbnail(image: Image) -> Image:
    """Average an (H, W, 3) uint8 image down to (32, 32, 3), whatever its aspect."""
    shrunk = cv2.resize(image, (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.uint8)


def fault(quality: Quality, settings: Curate) -> str:
    """Return the first fault that applies of dark, bright and blurred, or ""."""
    if quality.brightness < settings.min_brightness:
        return "dark"
    if quality.brightness > settings.max_brightness:
        return "bright"
    if quality.sharpness < settings.min_sharpness:
        return "blurred"
    return ""
