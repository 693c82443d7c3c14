"""The exemplar and its strong augmentation (section 3.2): the model must understand the exemplar, not copy it.

    c = MLP(CLIP(A(x_r))),   A = flip, rotation, elastic transform, blur

The probabilities are those of the official code. Its elastic transform at default settings changes a pixel by less than
a twentieth of a grey level; here the displacements are about `elastic_frac` of the exemplar's side and smooth over
`elastic_smooth_frac` of it. Images are (H, W, 3) uint8 RGB. Every draw takes its generator.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.settings import ExemplarAugmentation
from pbe.types import Box, Image

_FAST_FROM_PX = 128  # smaller images are resized quickly anyway
_FLOW_CELLS = 32
_CELLS_PER_SIGMA = 3


def crop_exemplar(image: Image, box_xyxy: Box, pad_frac: float, size_px: int, fast: bool = False) -> Image:
    """Crop the box, widened by `pad_frac` of its longer side and clipped to the image, to (size_px, size_px, 3).

    `fast` resizes by `resize_fast`. The official code pads by 10 px of the image as downloaded; a share of the box
    gives the same look at any resolution. Raises ValueError when the box holds no pixel of the image.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box_xyxy
    pad = round(pad_frac * max(x1 - x0, y1 - y0))
    left, top, right, bottom = max(0, x0 - pad), max(0, y0 - pad), min(width, x1 + pad), min(height, y1 + pad)
    if right <= left or bottom <= top:
        raise ValueError(f"box {box_xyxy} holds no pixel of a {width} x {height} image")
    return (resize_fast if fast else resize)(image[top:bottom, left:right], size_px, size_px)


class Change(NamedTuple):
    """One draw of A for an exemplar of `side` pixels; None where a part of A is not applied."""

    flip: bool
    angle_deg: float | None
    flow: NDArray[np.float32] | None  # (side, side, 2) px
    blur_px: float | None  # the Gaussian's standard deviation


def augment_exemplar(exemplar: Image, augmentation: ExemplarAugmentation, rng: np.random.Generator) -> Image:
    """Apply A of the paper to a square exemplar; the result has the same shape."""
    if not augmentation.augment:
        return exemplar
    return apply_change(exemplar, draw_change(exemplar.shape[0], augmentation, rng))


def draw_change(side: int, augmentation: ExemplarAugmentation, rng: np.random.Generator) -> Change:
    """Draw which parts of A are applied to an exemplar of `side` pixels, and how strongly."""
    flip = bool(rng.random() < augmentation.flip_probability)
    rotate = rng.random() < augmentation.rotate_probability
    angle = rng.uniform(-augmentation.max_rotation_deg, augmentation.max_rotation_deg) if rotate else None
    elastic = rng.random() < augmentation.elastic_probability
    flow = _elastic_flow(side, augmentation, rng) if elastic else None
    blur = rng.random() < augmentation.blur_probability
    sigma = max(rng.uniform(0.2, 1.0) * augmentation.max_blur_frac * side, 1e-3) if blur else None
    return Change(flip, angle, flow, sigma)


def apply_change(exemplar: Image, change: Change) -> Image:
    """Flip a square exemplar, then rotate and displace it in one interpolation, then blur it."""
    out = np.asarray(cv2.flip(exemplar, 1), np.uint8) if change.flip else exemplar
    if change.angle_deg is not None or change.flow is not None:
        side = exemplar.shape[0]
        flow = np.zeros((side, side, 2), np.float32) if change.flow is None else change.flow
        out = _warp(out, change.angle_deg or 0.0, flow)
    if change.blur_px is not None:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), change.blur_px), np.uint8)
    return out


def resize(image: Image, height: int, width: int) -> Image:
    """Resize by area to fewer pixels, bilinearly to more; an image of this size is returned unchanged."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    shrinking = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def resize_fast(image: Image, height: int, width: int) -> Image:
    """Resize like `resize`, in a quarter of the time for large images.

    The image is shrunk by an integer factor by area, then bilinearly by less than half, so that bilinear interpolation
    still reads every pixel. Images below 128 px, and those that grow, are passed to `resize`.
    """
    rows, columns = image.shape[:2]
    if max(rows, columns) < _FAST_FROM_PX or rows < height or columns < width:
        return resize(image, height, width)
    whole = min(rows // height, columns // width)
    if whole > 1:  # an exact multiple makes area resizing fast; cutting to it loses at most one pixel of the result
        image = resize(image[: rows // whole * whole, : columns // whole * whole], rows // whole, columns // whole)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _elastic_flow(side: int, augmentation: ExemplarAugmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a smooth displacement field, (side, side, 2) px, whose root mean square is `elastic_frac` of the side.

    The noise is drawn on a coarse grid: blurred over `elastic_smooth_frac`, it has no finer detail.
    """
    cells = min(side, max(_FLOW_CELLS, round(_CELLS_PER_SIGMA / augmentation.elastic_smooth_frac)))
    noise = rng.standard_normal((cells, cells, 2)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), augmentation.elastic_smooth_frac * cells)
    if cells < side:
        smooth = cv2.resize(smooth, (side, side), interpolation=cv2.INTER_CUBIC)
    scale = augmentation.elastic_frac * side / max(float(np.sqrt(np.square(smooth).mean())), 1e-6)
    return np.asarray(smooth * np.float32(scale), np.float32)


def _warp(image: Image, angle_deg: float, flow: NDArray[np.float32]) -> Image:
    """Rotate about the centre and displace by `flow` (side, side, 2), in one interpolation."""
    side = image.shape[0]
    centre = (side - 1) / 2
    offsets = np.arange(side, dtype=np.float32) - np.float32(centre)
    dx, dy = offsets[None, :], offsets[:, None]
    cos, sin = np.float32(np.cos(np.deg2rad(angle_deg))), np.float32(np.sin(np.deg2rad(angle_deg)))
    map_x = dx * cos + dy * sin + centre + flow[..., 0]
    map_y = dy * cos - dx * sin + centre + flow[..., 1]
    return np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8)
