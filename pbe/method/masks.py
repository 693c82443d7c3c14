"""Arbitrary mask shapes (section 3.2): what a person paints is no box.

Half of the masks are irregular: to each edge of the box a Bezier curve is fitted that bulges outwards, points are
sampled on it and jittered, and the polygon through them is filled. The other half are boxes extended on each side by up
to 40 % of the free space. Where the data know the object's shape, a share of the masks is that shape, widened by a
random margin: people who cut a region out closely then find a model that has seen such masks, and the boxes and curves
that the others remain keep it from taking every mask for an outline to fill. A mask is (size, size) uint8 and 1 where
to repaint; drawn from the box alone it always covers the box's middle.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe import settings
from pbe.method.windows import box_mask

Box = tuple[int, int, int, int]
Points = NDArray[np.float64]


def draw_mask(
    box_xyxy: Box,
    size_px: int,
    mask: settings.Mask,
    rng: np.random.Generator,
    object_mask: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Draw the mask of a box in a square image of `size_px`; `object_mask` is its object's shape there, if known."""
    if mask.shape == "box":
        return box_mask(box_xyxy, size_px)
    if object_mask is not None and rng.random() < mask.object_probability:
        return dilate_mask(object_mask, rng.uniform(0, mask.max_dilation_frac) * size_px)
    extended = extend_box(box_xyxy, size_px, mask.max_extension_frac, rng)
    if rng.random() >= mask.irregular_probability:
        return box_mask(extended, size_px)
    return irregular_mask(box_xyxy, extended, size_px, mask, rng)


def extend_box(box_xyxy: Box, size_px: int, max_extension_frac: float, rng: np.random.Generator) -> Box:
    """Move each side outwards by 0 .. `max_extension_frac` of the space between it and the image's edge."""
    x0, y0, x1, y1 = box_xyxy
    free = np.array([x0, y0, size_px - x1, size_px - y1])
    moves = np.rint(rng.uniform(0, max_extension_frac, 4) * free).astype(int)
    return x0 - int(moves[0]), y0 - int(moves[1]), x1 + int(moves[2]), y1 + int(moves[3])


def irregular_mask(
    box_xyxy: Box, extended_xyxy: Box, size_px: int, mask: settings.Mask, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Fill the polygon of jittered points on four Bezier curves from corner to corner of the box."""
    outline = box_outline(box_xyxy, extended_xyxy, mask.points_per_edge)
    jitter = rng.uniform(-1, 1, outline.shape) * mask.max_offset_frac * size_px
    # cv2 draws on pixel centres: a corner at x0 is the left edge of pixel x0
    points = np.clip(outline + jitter, 0, size_px) - 0.5
    filled = np.zeros((size_px, size_px), np.uint8)
    cv2.fillPoly(filled, [np.rint(points * 16).astype(np.int32)], 1, shift=4)
    return filled


def box_outline(box_xyxy: Box, extended_xyxy: Box, points_per_edge: int) -> Points:
    """Points on the four curves, clockwise from the upper left corner, before their jitter: (4 points_per_edge, 2).

    Each curve bulges towards the extended box's edge and comes half as far.
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


def dilate_mask(mask: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Widen an (H, W) mask of 0 and 1, not empty, by `radius_px` and at least one pixel, as annotators cut closely."""
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= max(1.0, radius_px), np.uint8)


def bezier(control_points: Points, num_points: int) -> Points:
    """Points on the quadratic Bezier curve of three control points (3, 2), its end left out: (num_points, 2).

    B(t) = (1 - t)^2 P0 + 2 t (1 - t) P1 + t^2 P2
    """
    t = np.linspace(0, 1, num_points, endpoint=False)[:, None]
    p0, p1, p2 = control_points
    return np.asarray((1 - t) ** 2 * p0 + 2 * t * (1 - t) * p1 + t**2 * p2)
