"""Which split an image belongs to, by the words of folders, files, tags and lists; the same words for every format.

A word counts only as a complete folder name on a level of splits: among the folders `bus`, `train` and `valve`, `train`
is a class. A level is one of splits when all its folders are split words, or when it has train beside another split.
"""

import os
import re
from functools import cache
from pathlib import Path, PurePath

from pbe.acquisition.importers.image_names import is_clutter
from pbe.acquisition.importers.path_endings import Key, PathEndings, name_key
from pbe.acquisition.importers.text_files import read_lines
from pbe.errors import UserError

TEST = "test"
WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), TEST),
}

_YEAR = re.compile(r"(?:19|20)\d\d$")  # train2017
_NEUTRAL_FOLDERS = frozenset(("annotations", "data", "docs", "images", "imagesets", "jpegimages", "labels", "masks"))
_NEUTRAL_WORDS = frozenset(
    ("annotation", "annotations", "bbox", "boxes", "coco", "data", "instances", "labels", "of", "set")
)
_LIST_FOLDERS = (".", "ImageSets", "ImageSets/Main", "ImageSets/Segmentation", "splits")


def split_word(word: str) -> str | None:
    """Return "train", "validation" or "test" when the whole word means one, such as `Valid` or `val2017`, else None."""
    return WORDS.get(_YEAR.sub("", word.strip().casefold()))


def split_in_file_name(stem: str) -> str | None:
    """Return the split that a file of annotations names: by its last word, or its first before words for annotations.

    `instances_val2017` and `pets-train` name one, `train_annotations.coco` too; `train_station` is a class.
    """
    words = [word for word in re.split(r"[^0-9A-Za-z]+", stem) if word]
    if not words:
        return None
    rest_is_neutral = all(word.isdecimal() or word.casefold() in _NEUTRAL_WORDS for word in words[1:])
    return split_word(words[-1]) or (split_word(words[0]) if rest_is_neutral else None)


class SplitFolders:
    """Tells the folders below `root` that name a split from those that name a class or nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_level = cache(_is_level_of_splits)

    def names_split(self, folder: Path) -> bool:
        """Return whether a folder below the root stands for a split; inside one, the same words are classes."""
        return folder == self._split_folder(folder)

    def of(self, folder: Path) -> str | None:
        """Return the split of the first folder that names one, on the way from the root to `folder`."""
        found = self._split_folder(folder)
        return None if found is None else split_word(found.name)

    def _split_folder(self, folder: Path) -> Path | None:
        if not folder.is_relative_to(self.root):
            return None
        place = self.root
        for part in folder.relative_to(self.root).parts:
            if split_word(part) and self._is_level(place):
                return place / part
            place = place / part
        return None


def _is_level_of_splits(parent: Path) -> bool:
    try:
        folders = [entry.name for entry in os.scandir(parent) if entry.is_dir() and not is_clutter(entry.name)]
    except OSError:
        return False
    splits = {word for name in folders if (word := split_word(name))}
    others = [name for name in folders if not split_word(name) and name.casefold() not in _NEUTRAL_FOLDERS]
    return not others or ("train" in splits and len(splits) > 1)


class SplitLists:
    """Lists of image names, `train.txt`, `val.txt`, `trainval.txt` and `test.txt`, wherever a layout puts them.

    A line is a name or a path, with or without a suffix, and may end in VOC's -1, 0 or 1.
    Raises UserError when one image is in two lists of different splits.
    """

    def __init__(self, *roots: Path) -> None:
        self._splits: dict[Key, str | None] = {}
        said_in: dict[Key, Path] = {}
        for path, split in _list_files(roots):
            for number, line in read_lines(path):
                key = _list_key(line)
                if not key:
                    continue
                known = self._splits.get(key)
                if known and split and known != split:
                    raise UserError(f"{path}: line {number}: {key[-1]!r} is in {said_in[key]} too; list it once")
                self._splits[key] = split or known
                said_in[key] = path
        self._endings = PathEndings(self._splits)

    def __bool__(self) -> bool:
        return bool(self._splits)

    def of(self, image: PurePath) -> str | None:
        """Return the split of the longest line that the image's path ends in, or None."""
        return self._endings.of(image)


def _list_files(roots: tuple[Path, ...]) -> list[tuple[Path, str | None]]:
    """Return the lists, trainval's first and without a split, so that train's and val's prevail."""
    found = []
    for folder in dict.fromkeys(root / place for root in roots for place in _LIST_FOLDERS):
        for path in sorted(folder.glob("*.txt")):
            split = None if path.stem.casefold() == "trainval" else split_word(path.stem)
            if (split or path.stem.casefold() == "trainval") and not is_clutter(path.name):
                found.append((path, split))
    return sorted(found, key=lambda each: each[1] is not None)


def _list_key(line: str) -> Key:
    name, _, flag = line.rpartition(" ")
    return name_key(name.strip() if name.strip() and flag in ("-1", "0", "1") else line)
