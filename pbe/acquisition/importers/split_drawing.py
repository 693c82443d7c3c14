"""The split of each image of own data: the named one, or one drawn by the seed, a group of images at a time."""

from collections.abc import Sequence

import numpy as np

from pbe.acquisition.importers.annotations import ImportedImage
from pbe.acquisition.importers.image_identity import MISSING
from pbe.dataset.openimages import draw_ranks
from pbe.errors import UserError


def draw_splits(
    images: Sequence[ImportedImage],
    ids: Sequence[str],
    groups: Sequence[str | None],
    validation_frac: float,
    seed: int,
) -> list[str]:
    """Return each image's split: the named one, or one drawn by the seed and its group, its id where it has none.

    An image without a named split follows those of its group that have one. Of two groups or more, each split gets one
    where any is drawn. Raises UserError when all images are in one group, which cannot be divided.
    """
    is_named = len({image.split for image in images}) > 1
    units = [f"split:{name}" if group is None else f"group:{group}" for name, group in zip(ids, groups, strict=True)]
    named = {unit: image.split for unit, image in zip(units, images, strict=True) if is_named and image.split}
    splits = [(image.split if is_named else None) or named.get(unit) for image, unit in zip(images, units, strict=True)]
    ranks = draw_ranks(units, seed)
    is_drawn = np.array([split is None for split in splits])
    is_validation = np.where(is_drawn, ranks < validation_frac * 2**64, [split == "validation" for split in splits])
    is_present = np.array([image.found_by != MISSING for image in images])
    drawn_ranks = np.sort(ranks[is_drawn & is_present])
    for wanted, rank in ((True, drawn_ranks[:1]), (False, drawn_ranks[-1:])):
        if is_present.sum() > 1 and not (is_validation == wanted)[is_present].any():
            is_validation[is_drawn & np.isin(ranks, rank)] = wanted
    if len(images) > 1 and len(set(units)) == 1:
        raise UserError(f"acquire.group_file: all {len(images)} images are in the group {groups[0]!r}; two are needed")
    return ["validation" if each else "train" for each in is_validation]
