"""One picture, one image, one id: images that are left out, listed twice or missing, and the ids of the others."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from pbe.acquisition.importers.annotations import ImportedBox, ImportedImage
from pbe.acquisition.importers.image_names import (
    caseless,
    image_stem,
    is_absolute,
    is_image_name,
    name_parts,
    walk_files,
)
from pbe.acquisition.importers.placement import ImportCounts
from pbe.acquisition.importers.split_names import TEST
from pbe.acquisition.stores import LostError
from pbe.errors import UserError
from pbe.settings import Acquire

MISSING = "missing"

_DOUBT = {"unicode_form": 1, "url_encoding": 2, "case": 3, "suffix": 4}  # of a match by a name in another form


def select_images(images: Iterable[ImportedImage], settings: Acquire, counts: ImportCounts) -> list[ImportedImage]:
    """Return the images to acquire, each picture once; every other image is counted in `counts.skipped`.

    Left out are images of the test split (unless `acquire.test_split` takes them), images without a box, and further
    listings of a picture, whose boxes are joined. Raises UserError when more images are missing than
    `acquire.max_lost_frac` allows, when one picture is in two splits, or when no box is left.
    """
    kept = []
    for image in images:
        if image.split == TEST and settings.test_split == "leave_out":
            counts.skipped[f"images of split {TEST}"] += 1
        elif not image.boxes:
            counts.skipped["image_without_boxes"] += 1
        else:
            kept.append(replace(image, split=settings.test_split) if image.split == TEST else image)
    unique = [_mark_missing(image) for image in _join_listings(kept, counts)]
    if not unique:
        shown = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.skipped.items()) if count)
        raise UserError(
            f"{settings.root}: no boxes found in the {settings.source} layout{shown and f' ({shown})'}; "
            "see docs/own-data.md for an example"
        )
    missing = [image for image in unique if image.found_by == MISSING]
    if len(missing) > int(settings.max_lost_frac * len(unique)):
        raise UserError(_describe_missing(missing, len(unique), settings))
    for image in unique:
        if image.found_by and image.found_by != MISSING:
            counts.adjusted[f"images_found_by_{image.found_by}"] += 1
    return unique


def image_ids(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a distinct id for each image: the first of stem, path and path with suffix that is distinct for all.

    A path is that below the common folder, with __ for /.
    """
    paths = list(dict.fromkeys(paths))
    root = Path(os.path.commonpath([path.absolute().parent for path in paths])) if paths else Path()
    relative = {path: path.absolute().relative_to(root) for path in paths}
    forms = (
        {path: image_stem(path.name) for path in paths},
        {path: "__".join((*below.parts[:-1], image_stem(below.name))) for path, below in relative.items()},
        {path: "__".join(below.parts) for path, below in relative.items()},
    )
    for ids in forms:
        cleaned = {path: _clean_id(found) for path, found in ids.items()}
        if len(set(cleaned.values())) == len(paths):
            return cleaned
    return {path: f"{found}-{hashlib.md5(repr(path).encode()).hexdigest()[:8]}" for path, found in cleaned.items()}


def _clean_id(text: str) -> str:
    """Return an id without a leading dot, control characters, or bytes that are not UTF-8."""
    shown = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() else "_" for character in shown)
    return f"_{shown}" if shown.startswith(".") else shown


def _join_listings(images: Sequence[ImportedImage], counts: ImportCounts) -> list[ImportedImage]:
    """Return each picture once, with the boxes of all its listings.

    A name that fits the picture in a looser form than another name does means a picture that is missing.
    """
    of_picture: dict[str, list[ImportedImage]] = defaultdict(list)
    for image in images:
        is_file = image.read is None and os.path.isfile(image.path)
        of_picture[os.path.realpath(image.path) if is_file else str(image.path)].append(image)
    joined = []
    for listings in of_picture.values():
        least = min(_doubt(image) for image in listings)
        certain = [image for image in listings if _doubt(image) == least]
        joined += [_as_missing(image) for image in listings if _doubt(image) > least]
        joined.append(_join(certain, least > 0, counts))
    return joined


def _join(listings: Sequence[ImportedImage], is_doubtful: bool, counts: ImportCounts) -> ImportedImage:
    first = listings[0]
    for other in listings[1:]:
        if other.split != first.split and (other.split and first.split):
            raise UserError(f"{first.path}: listed for both {first.split} and {other.split}; list it for one")
        if is_doubtful and name_parts(other.name)[-1:] != name_parts(first.name)[-1:]:
            raise UserError(f"{first.path}: both {first.name!r} and {other.name!r} may be this file; name it exactly")
    if len(listings) == 1:
        return first
    counts.skipped["image_listed_twice"] += len(listings) - 1
    boxes: dict[tuple[object, ...], ImportedBox] = {}
    for image in listings:
        for box in image.boxes:
            boxes.setdefault((box.label, *(round(share, 6) for share in box.xyxy)), box)
    split = next((image.split for image in listings if image.split), None)
    return replace(first, split=split, boxes=list(boxes.values()))


def _doubt(image: ImportedImage) -> int:
    return _DOUBT.get(image.found_by, 0)


def _as_missing(image: ImportedImage) -> ImportedImage:
    return replace(image, path=image.path.with_name(name_parts(image.name)[-1]), found_by=MISSING)


def _mark_missing(image: ImportedImage) -> ImportedImage:
    """Give an image without a file a reader that says so, as its name may be none that a file system accepts."""
    if image.read is not None or (image.found_by != MISSING and os.path.isfile(image.path)):
        return image
    return replace(image, found_by=MISSING, read=partial(_raise_missing, image.path))


def _raise_missing(path: Path) -> NoReturn:
    raise LostError("missing", f"{path}: no such file")


def _describe_missing(missing: Sequence[ImportedImage], num_images: int, settings: Acquire) -> str:
    names = ", ".join(repr(image.name or str(image.path)) for image in missing[:3])
    more = ", ..." if len(missing) > 3 else ""
    return (
        f"acquire.root: {settings.root}: {len(missing)} of {num_images} annotated images are missing ({names}{more}); "
        f"{_probable_cause(missing[0], settings)}"
    )


def _probable_cause(image: ImportedImage, settings: Acquire) -> str:
    name = image.name or str(image.path)
    root = Path(settings.root or "")
    files = [path for path, _ in walk_files(root) if is_image_name(path.name)] if root.is_dir() else []
    if not files:
        return "no image file is below the root; is it the folder that holds the images?"
    wanted = caseless((name_parts(name) or ("",))[-1])
    alike = [path for path in files if caseless(path.name) == wanted]
    alike += [path for path in files if caseless(image_stem(path.name)) == image_stem(wanted)]
    if alike and not alike[0].exists():
        return f"{alike[0].relative_to(root)} is a link to a file that does not exist; copy the file"
    if alike:
        return f"{alike[0].relative_to(root)} has this name in another folder or with another suffix; correct the path"
    if is_absolute(name):
        return "their paths begin at a folder that is not on this machine; copy the images below the root"
    return f"the root holds {len(files)} images such as {files[0].relative_to(root)}; name them as they are on disk"
