"""Folders of images and masks: a mask is its object's shape, and the mask's bounds are the box.

    images/**/x.jpg    masks/**/x.png               one file: a binary mask, or a value or colour for each object
                       masks/**/x_0.png, x_1.png    a file for each object, also named x_mask.png or x_mask_0.png
                       masks/**/x/*.png             a file for each object

`masks` may be anywhere below the root; the images are in `images` beside it, or in its parent folder. The folders
between name the split (train, val, test) and the class (the nearest other folder); without one the class is "object".
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pbe.acquisition.importers.annotations import ImportedBox, ImportedImage, Shares, folder_of
from pbe.acquisition.importers.image_names import caseless, image_stem, is_image_name, walk_files
from pbe.acquisition.importers.mask_levels import read_objects
from pbe.acquisition.importers.picture_sides import Frame, frame_of, turn_mask
from pbe.acquisition.importers.placement import ImportCounts, clean_label
from pbe.acquisition.importers.split_names import SplitFolders, SplitLists
from pbe.acquisition.processes import map_in_processes
from pbe.dataset.images import image_size
from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError
from pbe.settings import Acquire

UNNAMED = "object"
MIN_IN_PROCESSES = 300  # images with masks, each of which takes some 0.1 s; below, starting processes takes longer
_NUMBER = re.compile(r"(?:_mask)?(?:_\d+)?$")

Key = tuple[str, ...]  # a path below images or masks, in one form of names


class MaskJob(NamedTuple):
    """An image, its mask files, and `acquire.mask_values`."""

    image: Path
    masks: list[Path]
    values: str


class Shapes(NamedTuple):
    """The objects in an image's masks, each a box and its packed mask; what was counted; or the error, if any."""

    objects: list[tuple[Shares, bytes]]
    counts: ImportCounts
    error: UserError | None = None


def read_masks(settings: Acquire, counts: ImportCounts) -> Iterator[ImportedImage]:
    """Yield the images that have masks; counts empty masks, masks without an image and images without a mask.

    Raises UserError naming a mask whose size differs from its image's, or whose values are ambiguous.
    """
    root = folder_of(settings)
    below = {parent for path, _ in walk_files(root) for parent in path.relative_to(root).parents}
    masks_folders = sorted(root / parent for parent in below if parent.name == "masks")
    if not masks_folders:
        raise UserError(f"{root}: it contains no folder masks with files, which belongs beside the folder images")
    folders, lists = SplitFolders(root), SplitLists(root)
    for folder in masks_folders:
        images = folder.with_name("images")
        images = images if images.is_dir() else folder.parent
        of_image, num_without_image = _match(images, folder)
        counts.skipped["mask_without_image"] += num_without_image
        jobs = [MaskJob(image, masks, settings.mask_values) for image, masks in of_image.items() if masks]
        with closing(map_in_processes(read_shapes, jobs, MIN_IN_PROCESSES)) as shapes:
            for image, masks in of_image.items():
                split = lists.of(image) or folders.of(image.parent)
                if not masks:
                    counts.skipped["image_without_mask"] += 1
                    continue
                label = _label(image, images, folders)
                yield ImportedImage(image, split, _boxes(next(shapes), label, counts))


def _match(images: Path, folder: Path) -> tuple[dict[Path, list[Path]], int]:
    """Return each image's masks, in order, and the number of masks without an image."""
    by_key: dict[Key, list[Path]] = defaultdict(list)
    pictures = [path for path in _pictures(images) if not path.is_relative_to(folder)]
    for path in pictures:
        by_key[_key(path.relative_to(images))].append(path)
    masks: dict[Path, list[Path]] = defaultdict(list)
    without = 0
    for path in _pictures(folder):
        *above, name = _key(path.relative_to(folder))
        likely = ((*above, name), (*above, _NUMBER.sub("", name) or name), tuple(above))
        fitting = next((by_key[key] for key in likely if key in by_key), [])
        fitting = [image for image in fitting if image.name == path.stem] or fitting  # x.jpg.png is x.jpg's
        if all(path.with_suffix(image.suffix).is_file() for image in fitting):  # x.png is x.png's beside x.jpg
            fitting = [image for image in fitting if image.suffix == path.suffix] or fitting
        if len(fitting) > 1:
            raise UserError(f"{path}: may be the mask of {fitting[0]} or of {fitting[1].name}; rename one of them")
        if fitting:
            masks[fitting[0]].append(path)
        else:
            without += 1
    return {path: masks[path] for path in pictures}, without


def _key(path: Path) -> Key:
    return tuple(caseless(part) for part in (*path.parts[:-1], image_stem(image_stem(path.name))))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path, _ in walk_files(folder) if is_image_name(path.name))


def _label(image: Path, images: Path, folders: SplitFolders) -> str:
    """Return the class: the nearest folder between images/ and the file that is not the name of a split."""
    for folder in image.parents:
        if folder == images:
            break
        if not folders.names_split(folder):
            return clean_label(folder.name, str(image))
    return UNNAMED


def _frame(image: Path, mask: Path, sides: tuple[int, int]) -> Frame:
    """Return how a mask of these sides lies on its image; raises UserError naming both when it does not fit."""
    try:
        return frame_of(image, str(image), sides, str(mask))
    except UserError:
        width, height = image_size(image)
        raise UserError(
            f"{mask}: {sides[0]} x {sides[1]} px, but its image {image} is {width} x {height} px when upright"
        ) from None


def _boxes(shapes: Shapes, label: str, counts: ImportCounts) -> list[ImportedBox]:
    """Return the boxes of an image's objects and add what was counted; raises the error that its masks have."""
    if shapes.error:
        raise shapes.error
    counts.skipped.update(shapes.counts.skipped)
    counts.adjusted.update(shapes.counts.adjusted)
    return [ImportedBox(label, xyxy, object_mask=mask) for xyxy, mask in shapes.objects]


def read_shapes(job: MaskJob) -> Shapes:
    """Return the objects in an image's masks; a UserError is a result, to be raised when it is the image's turn."""
    counts = ImportCounts()
    try:
        return Shapes([shape for mask in job.masks for shape in _shapes(job, mask, counts)], counts)
    except UserError as error:
        return Shapes([], counts, error)


def _shapes(job: MaskJob, mask: Path, counts: ImportCounts) -> Iterator[tuple[Shares, bytes]]:
    from scipy import ndimage  # takes half a second, and no other source needs it

    labels = read_objects(mask, job.values)
    height, width = labels.shape
    frame = _frame(job.image, mask, (width, height))
    labels = turn_mask(labels, frame.orientation)
    height, width = labels.shape
    if frame.change:
        counts.adjusted[f"masks_{frame.change}"] += 1
    counts.skipped["empty_mask"] += not labels.any()
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        xyxy = columns.start / width, rows.start / height, columns.stop / width, rows.stop / height
        yield xyxy, pack_mask(labels[rows, columns] == number)
