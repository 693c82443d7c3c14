"""Names of image files: which files are images, which are no data, and which file an annotation means.

Tools write names in other forms than the disk has: `\\` for `/`, `0.JPG` for `0.jpg`, composed or decomposed accents,
URL-encoding, no suffix or another one. `ImageFinder` accepts a form when exactly one file fits it. A name given with
its folder is never matched in another folder.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from pbe.errors import UserError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff",
     ".gif", ".avif", ".heic", ".heif")
)  # fmt: skip

_CLUTTER = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints",
                      ".appledouble", "@eadir", ".git", ".svn", ".trashes", "$recycle.bin"))  # fmt: skip
_ABSOLUTE = re.compile(r"^(?:[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+://[^/]*|/)")  # a drive, a URL's host, a root


def is_clutter(name: str) -> bool:
    """Return whether an operating system or an editor writes files or folders of this name, which are no data."""
    return name.startswith("._") or name.casefold() in _CLUTTER


def is_image_name(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return os.path.splitext(name)[1].casefold() in IMAGE_SUFFIXES


def image_stem(name: str) -> str:
    """Return a name without the suffix of an image; any other suffix is a part of the name."""
    return os.path.splitext(name)[0] if is_image_name(name) else name


def name_parts(name: str) -> tuple[str, ...]:
    """Return the folders and the file of a relative name with either separator, without `.` and what `..` cancels."""
    parts: list[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def is_absolute(name: str) -> bool:
    """Return whether a name begins with a root, a drive or a URL's host, of this machine or another."""
    return _ABSOLUTE.match(name.strip()) is not None


def walk_files(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every file below `root` that is not clutter, in order, and whether it is behind a linked folder.

    Links are followed, and each folder is entered once, by its own name before any link to it.
    """
    seen: set[tuple[int, int]] = set()
    linked: list[Path] = []

    def walk(folder: Path, is_linked: bool) -> Iterator[tuple[Path, bool]]:
        try:
            stat = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # a broken link, or a folder that may not be read
            return
        if (stat.st_dev, stat.st_ino) in seen:
            return
        seen.add((stat.st_dev, stat.st_ino))
        for entry in entries:
            if is_clutter(entry.name):
                continue
            if not entry.is_dir():
                yield folder / entry.name, is_linked
            elif entry.is_symlink():
                linked.append(folder / entry.name)
            else:
                yield from walk(folder / entry.name, is_linked)

    yield from walk(root, False)
    while linked:
        yield from walk(linked.pop(0), True)


class Found(NamedTuple):
    """The file that a name means; `found_by` says what had to be ignored, "" for nothing and "missing" for no file."""

    path: Path
    found_by: str = ""


def _composed(part: str) -> str:
    return unicodedata.normalize("NFC", part)


def _decoded(part: str) -> str:
    return _composed(unquote(part))


def caseless(part: str) -> str:
    """Return a name decoded, composed and without case."""
    return _composed(_decoded(part).casefold())


def _stem(part: str) -> str:
    return image_stem(caseless(part))


_FORMS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {  # of the folders and of the file
    "": (str, str),
    "unicode_form": (_composed, _composed),
    "url_encoding": (_decoded, _decoded),
    "case": (caseless, caseless),
    "suffix": (caseless, _stem),
}


class NameIndex:
    """Finds the paths below `root` that end in a given name, in one of the forms of names."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self._paths = [(path, path.relative_to(root).parts) for path in paths]
        self._by_form: dict[str, dict[str, list[tuple[Path, tuple[str, ...]]]]] = {}

    def find(self, parts: Sequence[str]) -> tuple[list[Path], str]:
        """Return the paths whose last parts are `parts` in the first form that fits any, and that form's name."""
        for form, (of_folder, of_file) in _FORMS.items():
            wanted = (*(of_folder(part) for part in parts[:-1]), of_file(parts[-1]))
            fitting = [
                path
                for path, found in self._index(form).get(wanted[-1], [])
                if len(found) >= len(wanted)
                and tuple(of_folder(part) for part in found[-len(wanted) : -1]) == wanted[:-1]
            ]
            if fitting:
                return fitting, form
        return [], ""

    def _index(self, form: str) -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
        if form not in self._by_form:
            found: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
            for path, parts in self._paths:
                found[_FORMS[form][1](parts[-1])].append((path, parts))
            self._by_form[form] = found
        return self._by_form[form]


class ImageFinder:
    """Finds the image files below `root` that annotations name. `split_of` returns the split that a folder names."""

    def __init__(self, root: Path, split_of: Callable[[Path], str | None]) -> None:
        self.root = root
        self._split_of = split_of

    @cached_property
    def files(self) -> dict[Path, bool]:
        """Every image file below the root, and whether it is behind a linked folder."""
        return {path: is_linked for path, is_linked in walk_files(self.root) if is_image_name(path.name)}

    @cached_property
    def _names(self) -> NameIndex:
        return NameIndex(self.root, list(self.files))

    def find(self, name: str, folders: Sequence[Path], split: str | None, said_in: str) -> Found:
        """Return the file that `name` means: in one of `folders`, at the root or in its images folder, or anywhere.

        A file in the folder of another split than `split` is never meant when a name is given without its folder.
        A name that no file fits is returned as missing. Raises UserError when several files fit.
        """
        places = (*folders, self.root, self.root / "images", self.root / "JPEGImages", self.root.parent)
        exact = self._exact(name, places)
        if exact is not None:
            return Found(exact)
        parts = name_parts(_ABSOLUTE.sub("", name.strip()))
        if not parts:
            return Found(self.root / "?", "missing")
        separated = self._exact("/".join(parts), places) if "\\" in name else None
        if separated is not None:
            return Found(separated, "separators")
        for tail in self._tails(name, parts):
            fitting, form = self._names.find(tail)
            if len(tail) == 1 and split:
                fitting = [path for path in fitting if self._split_of(path.parent) in (None, split)] if fitting else []
                of_split = [path for path in fitting if self._split_of(path.parent) == split]
                fitting = of_split or fitting
            if len(fitting) > 1:
                shown = ", ".join(str(path.relative_to(self.root)) for path in fitting[:3])
                raise UserError(f"{said_in}: {name!r} matches {shown}; give its path from {self.root}")
            if fitting:
                return Found(fitting[0], self._reason(fitting[0], form, len(tail) < len(parts), name))
        return Found(self.root.joinpath(*parts), "missing")

    def fits(self, parts: Sequence[str]) -> bool:
        """Return whether the path of any image below the root ends in `parts`, in one of the forms of names."""
        return bool(self._names.find(parts)[0])

    def _exact(self, name: str, places: Sequence[Path]) -> Path | None:
        for folder in places:
            path = folder / name
            if os.path.isfile(path) and (folder != self.root.parent or path.is_relative_to(self.root)):
                return path
        return None

    def _tails(self, name: str, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Yield the ends of a path that may lie below the root: with its folder, whatever root it was written below."""
        yield parts
        if len(parts) == 1:
            return
        folders = _composed(str(self.root.absolute())).casefold().split(os.sep)
        for start in range(1, len(parts)):
            is_below_root = caseless(parts[start - 1]) == folders[-1]
            if is_below_root or (is_absolute(name) and start < len(parts) - 1):
                yield parts[start:]

    def _reason(self, path: Path, form: str, is_below_other_root: bool, name: str) -> str:
        if form:
            return form
        if is_below_other_root:
            return "other_root"
        if "\\" in name:
            return "separators"
        return "linked_folder" if self.files[path] else ""
