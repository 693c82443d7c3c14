"""The demo world: lit scenes of patterned shapes with known attributes.

A scene has a textured background, one light, and one to four objects, each a shape with a main colour, a pattern and a
second colour, shaded by the light and casting a soft shadow. The world replaces OpenImages where there is no network:
it has the same kind of boxes and the same faults and, unlike OpenImages, true attributes to score edits against.
Every function takes its random generator; the same generator gives the same pixels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pbe.types import Image

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
PATTERNS = ("plain", "striped", "dotted", "checked")
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 40),
    "orange": (242, 136, 24),
    "yellow": (246, 222, 58),
    "green": (44, 158, 62),
    "cyan": (70, 204, 216),
    "blue": (36, 76, 212),
    "purple": (126, 44, 172),
    "pink": (246, 140, 192),
    "white": (240, 240, 240),
    "black": (34, 34, 40),
}
COLOURS = tuple(PALETTE)

_SUPERSAMPLING = 4
_SHORT_SIDE_PX = 64
_LONG_SIDES_PX = (64, 72, 80)
_MAX_OVERLAP_FRAC = 0.12

Floats = NDArray[np.float32]


class ObjectBox(NamedTuple):
    """A tight box in pixels, `x1` and `y1` exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0


@dataclass(frozen=True)
class Attributes:
    """The attributes of an object, in the words of its caption."""

    shape: str
    colour: str
    pattern: str
    second_colour: str  # equals `colour` when the pattern is plain

    @property
    def caption(self) -> str:
        if self.pattern == "plain":
            return f"a plain {self.colour} {self.shape}"
        return f"a {self.pattern} {self.colour} {self.shape} with {self.second_colour}"


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene, with the flags that OpenImages gives its boxes."""

    attributes: Attributes
    box: ObjectBox
    is_occluded: bool = False
    is_truncated: bool = False
    is_group_of: bool = False
    is_depiction: bool = False


@dataclass(frozen=True)
class Scene:
    """A rendered scene: `image` is (H, W, 3) uint8 RGB with a short side of 64 px; `objects` are back to front."""

    image: Image
    objects: tuple[SceneObject, ...]

    @property
    def caption(self) -> str:
        """The captions of all objects in one sentence, the largest object first."""
        largest_first = sorted(self.objects, key=lambda o: -o.box.width * o.box.height)
        return " and ".join(o.attributes.caption for o in largest_first)


def draw_attributes(rng: np.random.Generator) -> Attributes:
    """Draw each attribute of one object uniformly; the second colour of a patterned object differs from the first."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    colour, second = rng.choice(len(COLOURS), size=2, replace=False)
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    return Attributes(shape, COLOURS[colour], pattern, COLOURS[colour if pattern == "plain" else second])


def draw_scene(rng: np.random.Generator, max_objects: int = 4, rare_kinds: bool = True) -> Scene:
    """Draw a scene of 1 to `max_objects` objects, the short side 64 px and the long one 64 to 80.

    With `rare_kinds`, about 2 % of the objects are groups and 2 % are flat depictions, as OpenImages flags them.
    """
    height, width = _draw_size(rng)
    light = _draw_light(rng)
    canvas = _background(rng, height, width, light)
    objects: list[SceneObject] = []
    for _ in range(int(rng.integers(1, max_objects + 1))):
        placed = _draw_place(rng, height, width, [o.box for o in objects])
        if placed is None:
            continue
        centre, side, truncated = placed
        kind = rng.random() if rare_kinds else 1.0
        attributes = draw_attributes(rng)
        members = _group_places(rng, centre, side) if kind < 0.02 else [(centre, side)]
        depiction = 0.02 <= kind < 0.04
        coverage = np.zeros((height, width), np.float32)
        for member_centre, member_side in members:
            drawn = _draw_object(rng, canvas, attributes, member_centre, member_side, light, flat=depiction)
            coverage = np.maximum(coverage, drawn)
        box = _tight_box(coverage)
        if box is None:
            continue
        occluded = [_overlap_frac(o.box, box) > 0 for o in objects]
        objects = [_occlude(o) if hit else o for o, hit in zip(objects, occluded, strict=True)]
        objects.append(SceneObject(attributes, box, False, truncated, len(members) > 1, depiction))
    if not objects:
        return draw_scene(rng, max_objects, rare_kinds)
    grain = rng.normal(0.0, 1.5, canvas.shape).astype(np.float32)
    return Scene(np.clip(canvas + grain, 0, 255).round().astype(np.uint8), tuple(objects))


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    long_side = int(rng.choice(_LONG_SIDES_PX))
    return (_SHORT_SIDE_PX, long_side) if rng.random() < 0.6 else (long_side, _SHORT_SIDE_PX)


def _draw_light(rng: np.random.Generator) -> Floats:
    """Draw a unit vector in the image plane that points to the light, which is always above the scene."""
    angle = rng.uniform(0.15 * np.pi, 0.85 * np.pi)
    return np.array([np.cos(angle), -np.sin(angle)], np.float32)


def _background(rng: np.random.Generator, height: int, width: int, light: Floats) -> Floats:
    """Draw a muted field of two tones with soft blotches or planks, brighter towards the light."""
    tones = rng.uniform(95, 190, (2, 1)) + rng.uniform(-18, 18, (2, 3))
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    coarse = rng.random((rng.integers(3, 6), rng.integers(3, 6))).astype(np.float32)
    blend = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        angle, period = rng.uniform(0, np.pi), rng.uniform(10, 20)
        waves = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * (2 * np.pi / period))
        blend = 0.6 * blend + 0.2 * (1 + waves)
    field = tones[0] + (tones[1] - tones[0]) * np.clip(blend, 0, 1)[..., None]
    towards_light = (xs / width - 0.5) * light[0] + (ys / height - 0.5) * light[1]
    return np.asarray(field * (1 + 0.3 * towards_light)[..., None], np.float32)


def _draw_place(
    rng: np.random.Generator, height: int, width: int, taken: list[ObjectBox]
) -> tuple[tuple[float, float], float, bool] | None:
    """Draw the centre and side of a new object that covers little of the others; return None when the scene is full.

    The third value says whether the image truncates the object.
    """
    for _ in range(12):
        side = _SHORT_SIDE_PX * float(np.exp(rng.uniform(np.log(0.2), np.log(0.95)))) / (1 + 0.2 * len(taken))
        truncated = rng.random() < 0.06
        margin = 0.15 * side if truncated else 0.56 * side
        if 2 * margin >= min(height, width):
            margin = min(height, width) / 2 - 1
        cx, cy = rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)
        half = side / 2
        box = ObjectBox(int(cx - half), int(cy - half), int(cx + half), int(cy + half))
        if all(_overlap_frac(box, other) <= _MAX_OVERLAP_FRAC for other in taken):
            crosses = box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height
            return (cx, cy), side, crosses
    return None


def _group_places(
    rng: np.random.Generator, centre: tuple[float, float], side: float
) -> list[tuple[tuple[float, float], float]]:
    offsets = rng.uniform(-0.32, 0.32, (6, 2)) * side
    return [((centre[0] + dx, centre[1] + dy), 0.36 * side) for dx, dy in offsets]


def _draw_object(
    rng: np.random.Generator,
    canvas: Floats,
    attributes: Attributes,
    centre: tuple[float, float],
    side: float,
    light: Floats,
    flat: bool,
) -> Floats:
    """Paint one object into `canvas` in place, and return its coverage, (H, W) in 0..1."""
    height, width = canvas.shape[:2]
    angle = np.deg2rad(rng.uniform(-15, 15))
    aspect = rng.uniform(0.85, 1.18)
    half = np.array([side / 2 * np.sqrt(aspect), side / 2 / np.sqrt(aspect)], np.float32)
    coverage = _coverage(attributes.shape, centre, half, angle, height, width)
    u, v = _object_coordinates(centre, half, angle, height, width)
    amount = _pattern(attributes.pattern, u, v, rng.uniform(0, 1, 2), float(2 / side))
    main, second = (np.array(PALETTE[c], np.float32) for c in (attributes.colour, attributes.second_colour))
    colour = main + (second - main) * amount[..., None]
    if not flat:
        shade = 1 + 0.16 * np.clip(u * light[0] + v * light[1], -1.2, 1.2)
        colour = colour * shade[..., None]
        _cast_shadow(canvas, coverage, side, light)
    alpha = coverage[..., None] * (0.55 if flat else 1.0)
    canvas += (np.clip(colour, 0, 255) - canvas) * alpha
    return coverage


def _cast_shadow(canvas: Floats, coverage: Floats, side: float, light: Floats) -> None:
    shift = -light * max(2.0, 0.14 * side)
    moved = cv2.warpAffine(
        coverage, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32), (coverage.shape[1], coverage.shape[0])
    )
    soft = cv2.GaussianBlur(moved, (0, 0), max(1.0, 0.07 * side))
    canvas *= (1 - 0.45 * soft)[..., None]


def _object_coordinates(
    centre: tuple[float, float], half: Floats, angle: float, height: int, width: int
) -> tuple[Floats, Floats]:
    """Return the coordinates of each pixel in the object's frame, -1..1 over its extent."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = xs + 0.5 - centre[0], ys + 0.5 - centre[1]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (dx * cos + dy * sin) / half[0], (dy * cos - dx * sin) / half[1]


def _pattern(pattern: str, u: Floats, v: Floats, phase: NDArray[np.float64], pixel: float) -> Floats:
    """Return the share of the second colour at each pixel, 0..1; `pixel` is a pixel's width in object coordinates."""
    if pattern == "plain":
        return np.zeros_like(u)
    if pattern == "striped":
        return _bands(v + phase[0], period=0.8, width=0.32, pixel=pixel)
    if pattern == "dotted":
        du = (u + phase[0]) % 0.8 - 0.4
        dv = (v + phase[1]) % 0.8 - 0.4
        return np.asarray(np.clip((0.26 - np.hypot(du, dv)) / pixel + 0.5, 0, 1), np.float32)
    lines_u = _bands(u + phase[0], period=0.8, width=0.22, pixel=pixel)
    lines_v = _bands(v + phase[1], period=0.8, width=0.22, pixel=pixel)
    return np.maximum(lines_u, lines_v)


def _bands(t: Floats, period: float, width: float, pixel: float) -> Floats:
    distance = np.abs(t % period - period / 2)
    return np.asarray(np.clip((width / 2 - distance) / pixel + 0.5, 0, 1), np.float32)


def _coverage(shape: str, centre: tuple[float, float], half: Floats, angle: float, height: int, width: int) -> Floats:
    """Return the anti-aliased coverage of the shape, (H, W) in 0..1."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, sin], [-sin, cos]])
    fixed_point = 1 << 4
    contours = [
        (((c * half) @ rotation + np.array(centre)) * _SUPERSAMPLING * fixed_point).round().astype(np.int32)
        for c in _CONTOURS[shape]
    ]
    large = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(large, contours, 255, shift=4)
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small.astype(np.float32) / 255, np.float32)


def _tight_box(coverage: Floats) -> ObjectBox | None:
    ys, xs = np.nonzero(coverage > 0.5)
    if len(ys) == 0:
        return None
    return ObjectBox(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def _overlap_frac(a: ObjectBox, b: ObjectBox) -> float:
    """Return the area of the intersection as a share of the smaller box."""
    w = min(a.x1, b.x1) - max(a.x0, b.x0)
    h = min(a.y1, b.y1) - max(a.y0, b.y0)
    smaller = min(a.width * a.height, b.width * b.height)
    return w * h / smaller if w > 0 and h > 0 and smaller > 0 else 0.0


def _occlude(o: SceneObject) -> SceneObject:
    return SceneObject(o.attributes, o.box, True, o.is_truncated, o.is_group_of, o.is_depiction)


def _circle(radius: float = 1.0, cx: float = 0.0, cy: float = 0.0) -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([cx + radius * np.cos(t), cy + radius * np.sin(t)], 1)


def _star() -> NDArray[np.float64]:
    t = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.08, 0.46)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -(y + 2.5) / 14.5], 1)


def _moon() -> NDArray[np.float64]:
    outer = np.linspace(0.22 * np.pi, 1.78 * np.pi, 40)
    start, end = _circle_point(outer[0]), _circle_point(outer[-1])
    centre_x, radius = 0.62, float(np.hypot(start[0] - 0.62, start[1]))
    a1, a0 = np.arctan2(end[1], end[0] - centre_x), np.arctan2(start[1], start[0] - centre_x)
    inner = np.linspace(a1 % (2 * np.pi), a0, 30)
    arc = np.stack([centre_x + radius * np.cos(inner), radius * np.sin(inner)], 1)
    points = np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), arc[1:-1]])
    return np.asarray(points + np.array([0.15, 0.0]))


def _circle_point(angle: float) -> tuple[float, float]:
    return float(np.cos(angle)), float(np.sin(angle))


_CROSS = np.array(
    [(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)]  # noqa: RUF005
    + [(0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)]
)
_CONTOURS: dict[str, list[NDArray[np.float64]]] = {
    "circle": [_circle()],
    "square": [np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])],
    "triangle": [np.array([(0, -1), (1.05, 0.9), (-1.05, 0.9)])],
    "star": [_star()],
    "cross": [_CROSS],
    "ring": [_circle(), _circle(0.48)],
    "heart": [_heart()],
    "moon": [_moon()],
}
