"""The files of a Hugging Face dataset, opened: what save_to_disk wrote, Parquet, Arrow, or images with metadata."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pbe.acquisition.importers.image_names import ImageFinder, walk_files
from pbe.acquisition.importers.placement import ImportCounts, Sides, stated_sides
from pbe.acquisition.importers.split_names import SplitFolders, split_in_file_name, split_word
from pbe.acquisition.importers.text_files import parse_json, read_lines
from pbe.errors import UserError
from pbe.settings import HuggingFace

_LIBRARY_ERRORS = (ValueError, TypeError, KeyError, OSError, AttributeError)  # on damaged files
_METADATA = "metadata.jsonl"
_SIZES = ("width", "height")


class Picture(NamedTuple):
    """One image: a file, or bytes in the dataset, which `path` then only names."""

    path: Path
    content: Any = None  # a buffer of the dataset
    read: Callable[[], bytes] | None = None


class Row(NamedTuple):
    """One row: its image, its objects, where it is, and the size that its columns width and height state."""

    picture: Picture
    objects: Any
    where: str
    stated: Sides | None = None


class Rows(NamedTuple):
    """The rows of one split."""

    split: str | None
    class_names: Sequence[str] | None
    rows: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override]
        return self.rows()


def open_rows(root: Path, options: HuggingFace, counts: ImportCounts) -> Iterator[Rows]:
    """Yield the splits of the dataset in a folder.

    Raises UserError naming the folder when it holds none, or a file that cannot be read.
    """
    import datasets  # takes seconds, which no other source has to wait for

    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        try:
            loaded = datasets.load_from_disk(root)
        except _LIBRARY_ERRORS as error:
            raise UserError(f"{root}: not a dataset that save_to_disk wrote: {_reason(error)}") from None
        yield from _saved(loaded, root, options, counts)
        return
    files = [path for path, _ in walk_files(root)]
    of_kind = {kind: [path for path in files if path.suffix.casefold() == kind] for kind in (".parquet", ".arrow")}
    metadata = [path for path in files if path.name.casefold() == _METADATA]
    folders = SplitFolders(root)
    for path in metadata:
        yield _imagefolder(path, root, folders, options)
    for path in [] if metadata else of_kind[".parquet"]:
        yield _parquet(path, _split_of(path, folders), options)
    for path in [] if metadata or of_kind[".parquet"] else of_kind[".arrow"]:
        try:
            dataset = datasets.Dataset.from_file(str(path))
        except _LIBRARY_ERRORS as error:
            raise UserError(f"{path}: not an Arrow file: {_reason(error)}") from None
        yield _dataset_rows(dataset, _split_of(path, folders), path.with_suffix(""), options)
    if not any((metadata, *of_kind.values())):
        raise UserError(f"{root}: no dataset: nothing that save_to_disk wrote, no *.parquet, *.arrow or {_METADATA}")


def _split_of(path: Path, folders: SplitFolders) -> str | None:
    return split_in_file_name(path.stem) or folders.of(path.parent)


def _saved(loaded: Any, root: Path, options: HuggingFace, counts: ImportCounts) -> Iterator[Rows]:
    if not isinstance(loaded, dict):  # a DatasetDict is one
        yield _dataset_rows(loaded, None, root, options)
        return
    for name, dataset in loaded.items():
        split = split_word(name)
        if split is None:
            counts.skipped[f"images of split {name}"] += dataset.num_rows
        else:
            yield _dataset_rows(dataset, split, root / name, options)


def _dataset_rows(dataset: Any, split: str | None, folder: Path, options: HuggingFace) -> Rows:
    dataset = dataset.with_format(None)  # a format such as numpy is saved with the set
    _require_columns(dataset.column_names, folder, options)

    def rows() -> Iterator[Row]:
        images = dataset.data.column(options.image)
        columns = [options.objects, *(name for name in _SIZES if name in dataset.column_names)]
        for number, described in enumerate(dataset.select_columns(columns)):
            where = f"{folder}: row {number}"
            content, path = _parts(images[number], where)
            read = None if content is None else partial(_scalar_bytes, content)
            picture = _picture(None if content is None else content.as_buffer(), path, folder, number, read)
            yield Row(picture, described[options.objects], where, _stated(described))

    return Rows(split, _class_names(dataset.features[options.objects], options.category), rows)


def _parquet(path: Path, split: str | None, options: HuggingFace) -> Rows:
    import datasets

    try:
        file = pq.ParquetFile(path)
        features = datasets.Features.from_arrow_schema(file.schema_arrow)
    except _LIBRARY_ERRORS as error:
        raise UserError(f"{path}: not a Parquet file: {_reason(error)}") from None
    _require_columns(file.schema_arrow.names, path, options)
    groups = _RowGroups(file, path, options.image)

    def rows() -> Iterator[Row]:
        number = 0
        for group in range(file.num_row_groups):
            objects = groups.column(group, options.objects)
            sizes = [groups.column(group, name) for name in _SIZES if name in file.schema_arrow.names]
            for place, image in enumerate(groups.images(group)):
                where = f"{path}: row {number}"
                content, name = _parts(image, where)
                read = None if content is None else partial(groups.image_bytes, group, place)
                buffer = None if content is None else content.as_buffer()
                picture = _picture(buffer, name, path.with_suffix(""), number, read)
                stated = stated_sides(*(size[place].as_py() for size in sizes)) if len(sizes) == 2 else None
                yield Row(picture, objects[place].as_py(), where, stated)
                number += 1

    return Rows(split, _class_names(features[options.objects], options.category), rows)


class _RowGroups:
    """The row groups of a Parquet file; the images of the last two stay in memory. Threads may share it."""

    def __init__(self, file: pq.ParquetFile, path: Path, column: str) -> None:
        self._file, self._path, self._lock = file, path, threading.Lock()
        self._cached = lru_cache(maxsize=2)(partial(self._read, column=column))

    def column(self, group: int, name: str) -> Any:
        with self._lock:
            return self._read(group, column=name)

    def images(self, group: int) -> Any:
        with self._lock:
            return self._cached(group)

    def image_bytes(self, group: int, place: int) -> bytes:
        content = self.images(group)[place]["bytes"]
        return bytes(content.as_py())

    def _read(self, group: int, column: str) -> Any:
        try:
            return self._file.read_row_group(group, columns=[column]).column(column)
        except _LIBRARY_ERRORS as error:
            raise UserError(f"{self._path}: row group {group} cannot be read: {_reason(error)}") from None


def _imagefolder(path: Path, root: Path, folders: SplitFolders, options: HuggingFace) -> Rows:
    finder = ImageFinder(root, folders.of)
    split = folders.of(path.parent)

    def rows() -> Iterator[Row]:
        for number, line in read_lines(path):
            where = f"{path}: line {number}"
            row = parse_json(line, where)
            for key in ("file_name", options.objects):
                if not isinstance(row, dict) or key not in row:
                    raise UserError(f"{where}: no {key!r}")
            found = finder.find(str(row["file_name"]), (path.parent,), split, where)
            yield Row(Picture(found.path), row[options.objects], where, _stated(row))

    return Rows(split, None, rows)


def _stated(row: Mapping[str, Any]) -> Sides | None:
    return stated_sides(*(row.get(name) for name in _SIZES))


def _require_columns(found: Sequence[str], folder: Path, options: HuggingFace) -> None:
    for key, column in (("image", options.image), ("objects", options.objects)):
        if column not in found:
            shown = ", ".join(found)
            raise UserError(f"{folder}: no column {column!r} (acquire.huggingface.{key}); columns found: {shown}")


def _parts(value: Any, where: str) -> tuple[Any, str]:
    """Return the bytes of an image in the dataset, or the path of its file; raises UserError when it has neither."""
    found = dict(value.items()) if isinstance(value, pa.StructScalar) and value.is_valid else {}
    content, path = found.get("bytes"), found.get("path")
    content = content if content is not None and content.is_valid and hasattr(content, "as_buffer") else None
    name = (path.as_py() if path is not None else None) or ""
    if content is None and not name:
        raise UserError(f"{where}: no image; the column must be one of datasets.Image")
    return content, str(name)


def _picture(content: Any, name: str, folder: Path, number: int, read: Callable[[], bytes] | None) -> Picture:
    if content is None:
        return Picture(Path(name))
    return Picture(folder / f"{folder.name}-{number:08d}", content, read)


def _scalar_bytes(content: Any) -> bytes:
    return bytes(content.as_py())


def _class_names(feature: Any, category: str) -> Sequence[str] | None:
    """Return the classes' names when the column of categories is a ClassLabel."""
    feature = getattr(feature, "feature", feature)  # a list of dicts
    feature = feature[0] if isinstance(feature, list) and feature else feature
    inner = feature.get(category) if isinstance(feature, Mapping) else None
    inner = getattr(inner, "feature", inner)  # a dict of lists
    return getattr(inner[0] if isinstance(inner, list) and inner else inner, "names", None)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
