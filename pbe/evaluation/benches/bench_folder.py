"""Finding a bench in the folder that its user has: COCOEE's download, which may lie some levels down.

The download of COCOEE holds GT_3500, Mask_bbox_3500 and Ref_3500; id_list.npy is in the authors' repository. Where the
list is missing, the ids are those of the files, in ascending order. Nothing is written into the folder.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pbe.errors import UserError, one_line
from pbe.evaluation.attributes import AttributeValues
from pbe.evaluation.benches.bench import (
    EXEMPLAR_PREFIX,
    ORIGIN_COLUMNS,
    SOURCE_PREFIX,
    Bench,
    Origin,
    exemplar_path,
    mask_path,
    source_path,
)

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
MAX_DEPTH = 3  # levels that an archive may add

_FOLDERS = {"GT_3500": source_path, "Mask_bbox_3500": mask_path, "Ref_3500": exemplar_path}
_STEM = re.compile(r"(\d{1,18})(?:_(?:GT|mask|ref))?", re.IGNORECASE)


@dataclass(frozen=True)
class BenchListing:
    """A bench whose files are listed and not yet opened."""

    bench: Bench
    ids_from_files: bool  # id_list.npy is missing
    other_files: tuple[Path, ...]  # files that belong to no case


def read_bench(folder: Path) -> Bench:
    """Return the bench at `folder` or below it, without opening its images; raises what `list_bench` raises."""
    return list_bench(folder).bench


def list_bench(folder: Path) -> BenchListing:
    """Find the bench at `folder` or below it, and list its files.

    A file whose name has an id without leading zeros, no ending such as _GT, or another image format is found too, and
    is listed in the bench's `other_names`. Raises UserError when there is no bench or more than one, id_list.npy does
    not hold unique ids, or cases.csv does not list the same ids.
    """
    found = find_bench(folder)
    names = {name: _files_by_id(found / name) for name in _FOLDERS}
    list_path = next((p / "id_list.npy" for p in _between(found, folder) if (p / "id_list.npy").is_file()), None)
    ids = _read_ids(list_path) if list_path else tuple(sorted({i for by_id in names.values() for i in by_id}))
    if not ids:
        raise UserError(f"{found}: holds no cases; the sources are files such as GT_3500/000000000285_GT.png")
    other_names: dict[Path, Path] = {}
    of_cases: set[Path] = set()
    for name, path_of in _FOLDERS.items():
        for case_id in ids:
            expected, files = path_of(found, case_id), names[name].get(case_id, [])
            if files and expected not in files:
                other_names[expected] = files[0]
            of_cases |= {expected} if expected in files else set(files[:1])
    every = {path for name in _FOLDERS for path in _visible_files(found / name)}
    bench = Bench(found, ids, _read_origins(found / "cases.csv", ids), other_names)
    return BenchListing(bench, list_path is None, tuple(sorted(every - of_cases)))


def find_bench(folder: Path) -> Path:
    """Return the folder with COCOEE's three folders: `folder`, its parent, or the only one up to three levels below.

    Raises UserError when there is none, or more than one.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; see evaluate.bench")
    if folder.name in _FOLDERS:
        folder = folder.parent
    candidates = [each for each in folders_below(folder, MAX_DEPTH) if any((each / name).is_dir() for name in _FOLDERS)]
    if not candidates and (folder / "id_list.npy").is_file():
        return folder  # a bench of no cases
    if not candidates:
        archive = next(iter(sorted(folder.glob("*.zip"))), None)
        hint = f"; unpack {archive.name} first" if archive else f", nor up to {MAX_DEPTH} levels below"
        raise UserError(f"{folder}: no bench in COCOEE's layout: no folder {', '.join(_FOLDERS)} here{hint}")
    if len(candidates) > 1:
        first, second = candidates[:2]
        raise UserError(
            f"{folder}: folders of a bench are in {first} and in {second}; name one of them, or move "
            f"{', '.join(_FOLDERS)} into one folder"
        )
    return candidates[0]


def folders_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield `folder` and the folders up to `depth` levels below it, sorted, without hidden ones and COCOEE's own."""
    yield folder
    if depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")) and entry.name not in _FOLDERS:
                yield from folders_below(entry, depth - 1)


def _between(below: Path, above: Path) -> Iterator[Path]:
    """Yield `below` and its parents up to `above`."""
    yield below
    if below != above and above in below.parents:
        yield from _between(below.parent, above)


def _files_by_id(folder: Path) -> dict[int, list[Path]]:
    """Return the image files of a folder by the id that their name begins with, in the order of their names."""
    found: dict[int, list[Path]] = {}
    for path in _visible_files(folder):
        match = _STEM.fullmatch(path.stem)
        if match and path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(int(match[1]), []).append(path)
    return found


def _visible_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "Thumbs.db")


def _read_ids(path: Path) -> tuple[int, ...]:
    try:
        ids = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of ids: {one_line(error)}") from None
    if ids.shape == (0,):
        raise UserError(f"{path}: lists no cases; see bench.num_cases for the project's own bench")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise UserError(f"{path}: must be a list of integers, but is {ids.dtype} of shape {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{path}: id {values[counts.argmax()]} is listed {counts.max()} times")
    return tuple(int(i) for i in ids)


def _read_origins(path: Path, ids: Sequence[int]) -> tuple[Origin, ...] | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = set(ORIGIN_COLUMNS) - set(columns)
        if missing:
            raise UserError(f"{path}: column {min(missing)} is missing")
        rows = list(reader)
    if [row["case_id"] for row in rows] != [str(i) for i in ids]:
        raise UserError(f"{path}: does not list the same ids in the same order as id_list.npy")
    attributes = [column for column in columns if column not in ORIGIN_COLUMNS]
    return tuple(_origin(row, attributes) for row in rows)


def _origin(row: Mapping[str, str | None], attributes: Sequence[str]) -> Origin:
    case_id, source_image_id, source_box_id, *exemplar = (row[column] or "" for column in ORIGIN_COLUMNS)
    exemplar_box_id, exemplar_label, exemplar_caption = exemplar
    return Origin(
        int(case_id),
        source_image_id,
        source_box_id,
        exemplar_box_id,
        exemplar_label,
        exemplar_caption,
        _truth(row, attributes, EXEMPLAR_PREFIX),
        _truth(row, attributes, SOURCE_PREFIX),
    )


def _truth(row: Mapping[str, str | None], columns: Iterable[str], prefix: str) -> AttributeValues:
    return {c.removeprefix(prefix): value for c in columns if c.startswith(prefix) and (value := row[c])}
