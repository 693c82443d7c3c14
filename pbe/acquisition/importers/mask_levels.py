"""The objects in a mask file: which pixels belong to which, whatever the tool that wrote the file put into them.

Values may be an object each, or levels of a smooth edge. What tells them apart is that an object has somewhere a
solid 3 x 3 block of its value, and a level of an edge has none.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbe.dataset.images import has_sixteen_bits, read_levels
from pbe.errors import UserError

_VOID = 255  # with the values 1, 2, ...: the rim that Pascal VOC draws around objects
_MAX_CLASS = 64  # numbers up to this beside 255 are classes or objects, larger ones are levels of grey
_MANY_LEVELS = 16  # more than these, with 255 among them, look like the smoothed edge of one object
_THIN_LEVELS = 3  # from as many levels without a solid block on, edges are smooth
_NOISE = 24  # of 255, by which JPEG changes a colour
_MIN_FLAT_FRAC = 0.5  # of the object's pixels that are flat in a picture of several levels
_REACH_PX = 16  # JPEG's noise reaches as far from an edge as a block of halved colours
_MIN_MAIN_FRAC = 0.005  # of the pixels, from which a colour of a noisy picture counts as one
_MAX_TABLE = 1 << 16  # values up to this are counted in a table; sorting the pixels takes ten times as long

Levels = NDArray[np.int64]


def read_objects(path: Path, values: str) -> Levels:
    """Return the mask as (H, W) numbers: 0 outside, 1, 2, ... for the objects in the order of their values.

    `values` is acquire.mask_values. Raises UserError naming a file that cannot be read, or whose values may be objects
    or a smooth edge.
    """
    levels = _object_levels(read_levels(path), path, values)
    found = np.union1d([0], _values(levels))  # 0 comes first, whether any pixel has it or not
    if found[-1] >= _MAX_TABLE:
        return np.searchsorted(found, levels)
    numbers = np.zeros(found[-1] + 1, np.int64)
    numbers[found] = np.arange(found.size)
    return np.asarray(numbers[levels], np.int64)


def _values(levels: Levels) -> Levels:
    """Return the distinct values, sorted."""
    if levels.max(initial=0) >= _MAX_TABLE:
        return np.unique(levels)
    return np.flatnonzero(np.bincount(levels.ravel()))


def _object_levels(levels: Levels, path: Path, values: str) -> Levels:
    is_jpeg = path.suffix.casefold() in (".jpg", ".jpeg", ".jpe", ".jfif")
    is_colour = levels.max(initial=0) > 255 and not has_sixteen_bits(path)
    if values == "binary" or (is_jpeg and not is_colour and values == "objects"):
        brightness = _rgb(levels).max(axis=-1) if is_colour else levels
        return np.asarray(brightness > brightness.max(initial=0) / 2, np.int64)
    if is_colour and (is_jpeg or values == "auto"):
        return _main_colours(levels, path, noise=_NOISE if is_jpeg else 0)
    if is_jpeg:
        return _jpeg_levels(levels, path)
    found = _values(levels)
    found = found[found != 0]
    if values == "auto" and found.size > 1:
        _refuse_smooth_edges(levels, found, path)
    if found.size > 1 and found[-1] == _VOID and _is_rim(found[:-1]):
        return np.where(levels == _VOID, 0, levels)
    return levels


def _is_rim(others: Levels) -> bool:
    return np.array_equal(others, np.arange(1, others.size + 1)) or int(others[-1]) <= _MAX_CLASS


def _refuse_smooth_edges(levels: Levels, found: Levels, path: Path) -> None:
    solid = set(_values(levels[_is_solid(levels)]).tolist())
    num_thin = sum(value not in solid for value in found.tolist())
    is_many = found.size > _MANY_LEVELS and found[-1] == _VOID
    if is_many or (num_thin >= _THIN_LEVELS and 2 * num_thin > found.size):
        raise UserError(
            f"{path}: {found.size} values up to {found[-1]} may be {found.size} objects or one with a smooth edge; "
            "set acquire.mask_values to objects or binary"
        )


def _main_colours(levels: Levels, path: Path, noise: int) -> Levels:
    """Return the levels with each pixel of a smooth or noisy edge given the nearest solid colour.

    Raises UserError naming a file in which no colour is solid.
    """
    from scipy import ndimage

    solid_pixels = _is_solid(levels)
    colours, sizes = np.unique(levels[solid_pixels], return_counts=True)
    num_colours = np.unique(levels).size
    if not noise and num_colours - np.union1d(colours, [0]).size < _THIN_LEVELS:
        return levels  # flat colours, of which one or two are thin lines
    mains = _merge(colours, sizes, noise, levels.size)
    if not any(mains.values()) and _rgb(levels).max() > noise:
        raise UserError(
            f"{path}: {num_colours} colours, none of them solid, are no objects; "
            "save the mask with one flat colour for each object, or set acquire.mask_values: binary"
        )
    is_main = solid_pixels & np.isin(levels, list(mains))
    renamed = np.zeros_like(levels)
    for value, main in mains.items():
        renamed[is_main & (levels == value)] = main
    rows, columns = ndimage.distance_transform_edt(~is_main, return_distances=False, return_indices=True)
    nearest = np.asarray(renamed[rows, columns], np.int64)
    return _nearest_colours(levels, renamed, is_main, nearest) if noise else nearest


def _nearest_colours(levels: Levels, renamed: Levels, is_main: NDArray[np.bool_], otherwise: Levels) -> Levels:
    """Return for each pixel the most similar main colour that has a solid block near it: JPEG's edges stay in place."""
    from scipy import ndimage

    rgb, found = _rgb(levels), otherwise.copy()
    least = np.full(levels.shape, np.iinfo(np.int64).max)
    for main in np.unique(renamed[is_main]):
        near = ndimage.distance_transform_edt(~(is_main & (renamed == main))) <= _REACH_PX
        difference = np.square(rgb - _rgb(main)).sum(axis=-1)
        closer = near & (difference < least)
        found[closer], least[closer] = main, difference[closer]
    return found


def _merge(colours: Levels, sizes: Levels, noise: int, num_pixels: int) -> dict[int, int]:
    """Return the colour that each solid colour stands for: itself, or a more frequent one within `noise`, or black."""
    rgb = _rgb(colours)
    mains: dict[int, int] = {}
    kept: list[int] = []
    for place in np.argsort(-sizes, kind="stable"):
        if noise and rgb[place].max() <= noise:
            mains[int(colours[place])] = 0
            continue
        near = [each for each in kept if noise and np.abs(rgb[each] - rgb[place]).max() <= noise]
        if near:
            mains[int(colours[place])] = int(colours[near[0]])
        elif not noise or sizes[place] >= _MIN_MAIN_FRAC * num_pixels:
            kept.append(int(place))
            mains[int(colours[place])] = int(colours[place])
    return mains


def _jpeg_levels(levels: Levels, path: Path) -> Levels:
    """Split a grey JPEG at half of its brightest level; raises UserError naming one with several solid levels."""
    values, sizes = np.unique(levels[_is_solid(levels)], return_counts=True)
    frequent = values[(sizes >= _MIN_MAIN_FRAC * levels.size) & (values > _NOISE)]
    sizes = sizes[np.isin(values, frequent)]
    is_flat = sizes.sum() >= _MIN_FLAT_FRAC * (levels > _NOISE).sum()
    if is_flat and frequent.size and np.diff(frequent, prepend=frequent[0]).max() > _NOISE:
        raise UserError(
            f"{path}: levels {', '.join(map(str, frequent[:4]))} may be several objects, and JPEG blurs their edges; "
            "save the mask as PNG, or set acquire.mask_values: binary"
        )
    return np.asarray(levels > levels.max() / 2, np.int64)


def _is_solid(levels: Levels) -> NDArray[np.bool_]:
    """Return which pixels belong to a 3 x 3 block of one value."""
    from scipy import ndimage

    same = np.zeros(levels.shape, bool)
    height, width = levels.shape
    if height >= 3 and width >= 3:
        middle = levels[1:-1, 1:-1]
        equal = np.ones(middle.shape, bool)
        for row in range(3):
            for column in range(3):
                equal &= levels[row : row + height - 2, column : column + width - 2] == middle
        same[1:-1, 1:-1] = equal
    return np.asarray(ndimage.binary_dilation(same, np.ones((3, 3), bool)), np.bool_)


def _rgb(levels: Levels) -> Levels:
    return np.stack([levels & 255, levels >> 8 & 255, levels >> 16 & 255], axis=-1)
