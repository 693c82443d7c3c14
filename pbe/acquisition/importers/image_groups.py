"""The group of each image, such as the clip of a frame, from the CSV file `acquire.group_file`."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

from pbe.acquisition.importers.annotations import ImportedImage, folder_of
from pbe.acquisition.importers.path_endings import Key, PathEndings, name_key
from pbe.acquisition.importers.placement import ImportCounts
from pbe.acquisition.importers.text_files import read_rows
from pbe.errors import UserError
from pbe.settings import Acquire


def groups_of(images: Sequence[ImportedImage], settings: Acquire, counts: ImportCounts) -> list[str | None]:
    """Return each image's group: that of the row whose `image` is the longest end of the image's path, or None.

    Without `acquire.group_file`, all are None. Images without a group and rows without an image are counted. Raises
    UserError naming the line when an image is given two groups, and when no row names any image.
    """
    if settings.group_file is None:
        return [None] * len(images)
    path = _file(settings, settings.group_file)
    groups = _read_groups(path, settings.group_column)
    endings = PathEndings(groups)
    keys = [endings.key_of(image.path) or endings.key_of(PurePath(image.name or "?")) for image in images]
    found = [groups[key] if key else None for key in keys]
    if not any(keys):
        raise UserError(f"{path}: none of its {len(groups)} images is one of the data's, such as {images[0].path}")
    counts.adjusted["images_without_group"] += sum(not group for group in found)
    counts.skipped["group_row_without_image"] += len(groups.keys() - set(keys))
    return [group or None for group in found]


def _file(settings: Acquire, name: str) -> Path:
    path = Path(name) if settings.source == "fiftyone" else folder_of(settings) / name
    if not path.is_file():
        raise UserError(f"acquire.group_file: {path}: no such file")
    return path


def _read_groups(path: Path, column: str) -> dict[Key, str]:
    """Return the group by the key of the image's name; "" where the row names none."""
    groups: dict[Key, str] = {}
    lines: dict[Key, int] = {}
    for line, row in read_rows(path, ("image", column.casefold())):
        key, group = name_key(row["image"]), unicodedata.normalize("NFC", row[column.casefold()])
        if not key:
            raise UserError(f"{path}: line {line}: the image is empty; name its file, or remove the row")
        if groups.setdefault(key, group) != group:
            raise UserError(
                f"{path}: line {line}: {row['image']!r} has the {column} {group!r} here and {groups[key]!r} in line "
                f"{lines[key]}; give an image one group"
            )
        lines.setdefault(key, line)
    return groups
