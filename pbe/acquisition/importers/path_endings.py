"""Values that a list states for images by name, where a name is the end of a path: `7`, `7.jpg` or `clip/7.jpg`."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import Generic, TypeVar

from pbe.acquisition.importers.image_names import caseless, image_stem, is_absolute, name_parts

Value = TypeVar("Value")
Key = tuple[str, ...]


def name_key(name: str) -> Key:
    """Return a listed name without case, accents' forms and the suffix of an image; () for a name without any part.

    Of an absolute path, which may be of another machine, only the last folder and the file count.
    """
    parts = _key(name_parts(name))
    return parts[-2:] if is_absolute(name) else parts


class PathEndings(Generic[Value]):
    """Finds the value of the longest key that a path ends in."""

    def __init__(self, values: Mapping[Key, Value]) -> None:
        self._values = values
        self._by_last: dict[str, list[Key]] = defaultdict(list)
        for key in values:
            self._by_last[key[-1]].append(key)

    def key_of(self, image: PurePath) -> Key | None:
        """Return the longest key that the image's path ends in, or None."""
        parts = _key((*image.parts[:-1], image.name))
        keys = [key for key in self._by_last.get(parts[-1], []) if parts[-len(key) :] == key]
        return max(keys, key=len) if keys else None

    def of(self, image: PurePath) -> Value | None:
        """Return the value of `key_of` the image, or None."""
        key = self.key_of(image)
        return None if key is None else self._values[key]


def _key(parts: tuple[str, ...]) -> Key:
    return (*map(caseless, parts[:-1]), image_stem(caseless(parts[-1]))) if parts else ()
