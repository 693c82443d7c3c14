"""Images beside masks: each mask is its object's shape, and its bounds are the box.

    images/**/x.jpg    masks/**/x.png               one file: a binary mask, or a number or colour for each object
                       masks/**/x_0.png, x_1.png    a file an object, x_mask.png and x_mask_0.png too
                       masks/**/x/*.png             a file an object

`masks` may lie anywhere below the root; the images are in `images` beside it, or in its parent itself. Folders between
say the split (train, val) and the class (the nearest other one); without any the class is "object".
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pbe.acquisition.importers.annotations import IMAGE_SUFFIXES, OwnBox, OwnImage, folder_of, shares, split_in
from pbe.dataset.images import image_size, read_levels
from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError
from pbe.settings import Acquire

UNNAMED = "object"
_VOID = 255  # beside 1, 2, ...: the rim that Pascal VOC draws around objects
_MOST_LEVELS = 16  # more than these, with 255 among them, look like the smoothed edge of one object
_NUMBER = re.compile(r"(?:_mask)?(?:_\d+)?$")


def read_masks(settings: Acquire, skipped: Counter[str]) -> Iterator[OwnImage]:
    """Images that have masks; counts empty masks, masks without an image and images without a mask in `skipped`.

    Raises UserError naming a mask whose size is not its image's, or whose objects cannot be told apart.
    """
    root = folder_of(settings)
    folders = sorted(path for path in root.rglob("masks") if path.is_dir())
    if not folders:
        raise UserError(f"{root}: no folder masks here; it belongs beside the folder images")
    for folder in folders:
        images = folder.with_name("images")
        images = images if images.is_dir() else folder.parent
        of_image, without_image = _match(images, folder)
        skipped["mask_without_image"] += without_image
        for image, masks in of_image.items():
            skipped["image_without_mask"] += not masks
            place = image.relative_to(root)
            label = _label(image.relative_to(images).parent)
            boxes = [box for mask in masks for box in _boxes(image, mask, label, settings, skipped)]
            if boxes:
                yield OwnImage(image, split_in(place.parent), boxes)


def _match(images: Path, folder: Path) -> tuple[dict[Path, list[Path]], int]:
    """Each image's masks, in order, and how many masks are no image's."""
    found = {path.relative_to(images).with_suffix(""): path for path in _pictures(images, folder)}
    masks: dict[Path, list[Path]] = defaultdict(list)
    without = 0
    for path in _pictures(folder):
        name = path.relative_to(folder).with_suffix("")
        likely = (name, name.with_name(_NUMBER.sub("", name.name) or name.name), name.parent)
        key = next((key for key in likely if key in found), None)
        if key is None:
            without += 1
        else:
            masks[found[key]].append(path)
    return {path: masks[path] for path in found.values()}, without


def _pictures(folder: Path, without: Path | None = None) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not (without and path.is_relative_to(without)):
            yield path


def _label(between: Path) -> str:
    """The nearest folder between images/ and the file that names no split."""
    return next((part for part in reversed(between.parts) if split_in(Path(part)) is None), UNNAMED)


def _boxes(image: Path, mask: Path, label: str, settings: Acquire, skipped: Counter[str]) -> Iterator[OwnBox]:
    from scipy import ndimage  # here, as half a second and 20 MB are much for each process of every other source

    try:
        sides = image_size(image)
    except UserError:  # which acquire will report lost
        sides = None
    levels = _levels(mask, settings.mask_values)
    height, width = levels.shape
    if sides is not None and sides != (width, height):
        raise UserError(f"{mask}: {width} x {height} px, but its image {image} is {sides[0]} x {sides[1]} px")
    found, places = np.unique(np.append(0, levels), return_inverse=True)  # 0 comes first, there or not
    labels = places[1:].reshape(levels.shape)
    skipped["empty_mask"] += found.size == 1
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        xyxy = columns.start, rows.start, columns.stop, rows.stop
        inside = pack_mask(labels[rows, columns] == number)
        yield OwnBox(label, shares(xyxy, (width, height)), object_mask=inside)


def _levels(path: Path, values: str) -> NDArray[np.int64]:
    """The mask as (H, W) numbers: 0 outside, one for each object.

    Raises UserError naming a file that cannot be read, or whose values may be objects' numbers or a smooth edge.
    """
    levels = read_levels(path)
    if values == "binary" or path.suffix.lower() in (".jpg", ".jpeg"):
        return np.asarray(levels > levels.max() / 2, np.int64)
    found = np.unique(levels[levels != 0])
    if found.size < 2 or found[-1] != _VOID:
        return levels
    if values == "auto" and found.size > _MOST_LEVELS:
        raise UserError(
            f"{path}: {found.size} values up to 255 may be as many objects or one with a smooth edge; "
            "say which with acquire.mask_values: objects or binary"
        )
    is_counted = np.array_equal(found[:-1], np.arange(1, found.size))
    return np.where(levels == _VOID, 0, levels) if is_counted else levels
