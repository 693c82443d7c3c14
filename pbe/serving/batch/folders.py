"""Rows of `pbe batch` from a folder of folders: DIR/NAME/source.*, mask.* and exemplar.* make the picture NAME.

Several pictures of the object are exemplar-1.*, exemplar-2.* and so on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbe.errors import UserError
from pbe.serving.batch.boxes import EXEMPLAR_SUFFIXES
from pbe.serving.batch.rows import Row, check_names

PATTERNS = {"source": ("source.*",), "mask": ("mask.*",), "exemplar": ("exemplar.*", "exemplar-*.*")}


def rows_of_folder(root: Path) -> list[Row]:
    """Return a row for each folder in `root` that holds a source, a mask or an exemplar, in the order of their names.

    What a folder lacks, or has twice, is an error of its row. Raises UserError when there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"--folder {root}: no such folder")
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {name: parts for name in names if (parts := _parts_of(root / name))}
    if not found:
        raise UserError(f"--folder {root}: has no picture; a picture NAME needs {root}/NAME/source.png, mask.png "
                        "and exemplar.png; .jpg and other formats also work")  # fmt: skip
    rows = [Row(number, {"name": name, **parts}, root) for number, (name, parts) in enumerate(found.items(), 1)]
    check_names(rows, str(root))
    return rows


def _parts_of(folder: Path) -> Mapping[str, Any]:
    """Return the files of a picture relative to the folder above; a list where there are several of one kind."""
    parts: dict[str, Any] = {}
    for part, patterns in PATTERNS.items():
        found = sorted(path for pattern in patterns for path in folder.glob(pattern) if _is_image(path))
        files = [f"{folder.name}/{path.name}" for path in found]
        if files:
            parts[part] = files[0] if len(files) == 1 else files
    return parts


def _is_image(path: Path) -> bool:
    return path.suffix.casefold() in EXEMPLAR_SUFFIXES and path.is_file()
