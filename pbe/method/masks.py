"""Arbitrary mask shapes (section 3.2): users do not paint boxes.

Half of the masks are irregular: a Bezier curve that bulges outwards is fitted to each edge of the box, points are
sampled on it and jittered, and the polygon through them is filled. The other half are boxes extended on each side by up
to 40 % of the free space. Where the data contain the object's shape, a share of the masks is that shape, dilated by a
random margin, so that the model also learns masks that follow an outline closely; the other masks keep it from filling
every mask to its outline. Masks drawn from the box alone always cover the middle of the box.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe import settings
from pbe.method.windows import box_mask
from pbe.types import Box, Mask

Points = NDArray[np.float64]


def draw_mask(
    box_xyxy: Box,
    size_px: int,
    mask: settings.Mask,
    rng: np.random.Generator,
    object_mask: Mask | None = None,
) -> Mask:
    """Draw the mask (size_px, size_px) of a box; `object_mask`, of the same size, is the object's shape if known."""
    if mask.shape == "box":
        return box_mask(box_xyxy, size_px)
    if object_mask is not None and rng.random() < mask.object_probability:
        return dilate_mask(object_mask, rng.uniform(0, mask.max_dilation_frac) * size_px)
    extended = extend_box(box_xyxy, size_px, mask.max_extension_frac, rng)
    if rng.random() >= mask.irregular_probability:
        return box_mask(extended, size_px)
    return irregular_mask(box_xyxy, extended, size_px, mask, rng)


def extend_box(box_xyxy: Box, size_px: int, max_extension_frac: float, rng: np.random.Generator) -> Box:
    """Move each side outwards by 0 to `max_extension_frac` of the space between it and the edge of the image."""
    x0, y0, x1, y1 = box_xyxy
    free = np.array([x0, y0, size_px - x1, size_px - y1])
    moves = np.rint(rng.uniform(0, max_extension_frac, 4) * free).astype(int)
    return x0 - int(moves[0]), y0 - int(moves[1]), x1 + int(moves[2]), y1 + int(moves[3])


def irregular_mask(
    box_xyxy: Box, extended_xyxy: Box, size_px: int, mask: settings.Mask, rng: np.random.Generator
) -> Mask:
    """Fill the polygon of jittered points on the four Bezier curves of `box_outline`."""
    outline = box_outline(box_xyxy, extended_xyxy, mask.points_per_edge)
    jitter = rng.uniform(-1, 1, outline.shape) * mask.max_offset_frac * size_px
    # cv2's integer coordinates are pixel centres; ours are pixel edges: x0 is the left edge of pixel x0
    points = np.clip(outline + jitter, 0, size_px) - 0.5
    filled = np.zeros((size_px, size_px), np.uint8)
    cv2.fillPoly(filled, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return filled


def box_outline(box_xyxy: Box, extended_xyxy: Box, points_per_edge: int) -> Points:
    """Return the points on the four curves, clockwise from the upper left corner: (4 points_per_edge, 2).

    The middle control point of each curve lies on the edge of the extended box, so that the curve reaches half as far.
    """
    x0, y0, x1, y1 = box_xyxy
    left, top, right, bottom = extended_xyxy
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    bulges = [(middle_x, top), (right, middle_y), (middle_x, bottom), (left, middle_y)]
    edges = [
        bezier(np.array([corners[i], bulges[i], corners[(i + 1) % 4]], np.float64), points_per_edge) for i in range(4)
    ]
    return np.concatenate(edges)


def dilate_mask(mask: Mask, radius_px: float) -> Mask:
    """Dilate a mask that is not empty by `radius_px`, at least by one pixel: annotations follow objects closely."""
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= max(1.0, radius_px), np.uint8)


def bezier(control_points: Points, num_points: int) -> Points:
    """Return points on the quadratic Bezier curve of three control points (3, 2), without its end: (num_points, 2).

    B(t) = (1 - t)^2 P0 + 2 t (1 - t) P1 + t^2 P2
    """
    t = np.linspace(0, 1, num_points, endpoint=False)[:, None]
    p0, p1, p2 = control_points
    return np.asarray((1 - t) ** 2 * p0 + 2 * t * (1 - t) * p1 + t**2 * p2)
