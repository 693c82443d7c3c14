"""A bench in COCOEE's file layout (section 4.1): cases of a source, a mask and an exemplar.

    id_list.npy                            int64, the case ids
    GT_3500/{id:012d}_GT.png               the source
    Mask_bbox_3500/{id:012d}_mask.png      255 = repaint
    Ref_3500/{id:012d}_ref.png             the exemplar, any size
    cases.csv                              optional, not part of COCOEE: the origin of each case (see `Origin`)

The names of the folders are part of the layout, whatever the number of cases. Results are named `{id:012d}.png` and lie
in a separate folder. A case is decoded each time it is read; a bench holds no pixels in memory.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from pbe.dataset.images import image_size, read_image
from pbe.dataset.mask_images import read_mask
from pbe.errors import UserError, one_line
from pbe.evaluation.attributes import AttributeValues
from pbe.method.windows import mask_box
from pbe.runtime.files import atomic_file, atomic_folder, write_json
from pbe.types import Box, Image, Mask

_COLUMNS = ("case_id", "source_image_id", "source_box_id", "exemplar_box_id", "exemplar_label", "exemplar_caption")
_EXEMPLAR, _SOURCE = "exemplar_", "source_"  # prefixes of the columns of attributes
_MAX_NAMED = 3  # ids in an error about many


@dataclass(frozen=True)
class Case:
    """One edit: `source` (H, W, 3) and `exemplar` (h, w, 3) uint8 RGB, `mask` (H, W) uint8 0/1, 1 = repaint."""

    id: int
    source: Image
    mask: Mask
    exemplar: Image

    @property
    def box(self) -> Box:
        """The mask's bounding box, last row and column included."""
        return mask_box(self.mask)


@dataclass(frozen=True)
class Origin:
    """A row of cases.csv: the boxes that a case was made from, and their true attributes where they are known.

    The columns of attributes are `exemplar_<attribute>` and `source_<attribute>`.
    """

    case_id: int
    source_image_id: str
    source_box_id: str
    exemplar_box_id: str
    exemplar_label: str
    exemplar_caption: str = ""
    exemplar_truth: AttributeValues = field(default_factory=dict)
    source_truth: AttributeValues = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A checked bench; `origins` is None for a bench without cases.csv, such as COCOEE."""

    folder: Path
    ids: tuple[int, ...]
    origins: tuple[Origin, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def case(self, case_id: int) -> Case:
        """Decode one case."""
        source = read_image(source_path(self.folder, case_id))
        mask = read_mask(mask_path(self.folder, case_id))
        return Case(case_id, source, mask, read_image(exemplar_path(self.folder, case_id)))

    def head(self, num_cases: int) -> "Bench":
        """Return the bench of the first `num_cases` cases."""
        origins = None if self.origins is None else self.origins[:num_cases]
        return Bench(self.folder, self.ids[:num_cases], origins)

    @property
    def num_reused_boxes(self) -> int:
        """The number of cases that repaint a box which an earlier case repaints, too."""
        return 0 if self.origins is None else len(self) - len({o.source_box_id for o in self.origins})

    @property
    def exemplar_truth(self) -> tuple[AttributeValues, ...] | None:
        """The true attributes of the exemplars, in bench order; None unless they are known for every case."""
        return _known([o.exemplar_truth for o in self.origins or ()])

    @property
    def source_truth(self) -> tuple[AttributeValues, ...] | None:
        """The true attributes of the boxes before the edit, in bench order; None unless known for every case."""
        return _known([o.source_truth for o in self.origins or ()])


def _known(truth: Sequence[AttributeValues]) -> tuple[AttributeValues, ...] | None:
    return tuple(truth) if truth and all(truth) else None


def source_path(folder: Path, case_id: int) -> Path:
    return folder / "GT_3500" / f"{case_id:012d}_GT.png"


def mask_path(folder: Path, case_id: int) -> Path:
    return folder / "Mask_bbox_3500" / f"{case_id:012d}_mask.png"


def exemplar_path(folder: Path, case_id: int) -> Path:
    return folder / "Ref_3500" / f"{case_id:012d}_ref.png"


def result_path(folder: Path, case_id: int) -> Path:
    return folder / f"{case_id:012d}.png"


def write_image(path: Path, image: Image) -> None:
    """Write a PNG, (H, W, 3) RGB or (H, W) greyscale uint8, atomically."""
    with atomic_file(path) as part:
        PillowImage.fromarray(image).save(part, format="PNG")


def write_case(folder: Path, case: Case) -> None:
    """Write the three files of a case; missing folders are created."""
    write_image(source_path(folder, case.id), case.source)
    write_image(mask_path(folder, case.id), case.mask * np.uint8(255))
    write_image(exemplar_path(folder, case.id), case.exemplar)


def write_index(folder: Path, origins: Sequence[Origin]) -> None:
    """Write id_list.npy and cases.csv, in the order of `origins`."""
    rows = [_origin_row(origin) for origin in origins]
    names = dict.fromkeys(name for o in origins for truth in (o.exemplar_truth, o.source_truth) for name in truth)
    attributes = [prefix + name for prefix in (_EXEMPLAR, _SOURCE) for name in names]
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, *attributes], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    np.save(folder / "id_list.npy", np.array([o.case_id for o in origins], np.int64))


def _origin_row(origin: Origin) -> dict[str, str | int]:
    row: dict[str, str | int] = {column: getattr(origin, column) for column in _COLUMNS}
    for prefix, truth in ((_EXEMPLAR, origin.exemplar_truth), (_SOURCE, origin.source_truth)):
        row |= {prefix + name: value for name, value in truth.items()}
    return row


def write_reference(folder: Path, bench: Bench, digest: str) -> None:
    """Write a folder that stands for a bench elsewhere: its ids, and in bench.json where it lies and its digest.

    An evaluation of a given bench leaves it where a bench of the project's own images would be.
    """
    with atomic_folder(folder) as part:
        np.save(part / "id_list.npy", np.array(bench.ids, np.int64))
        write_json(part / "bench.json", {"folder": str(bench.folder), "num_cases": len(bench), "digest": digest})


def read_bench(folder: Path) -> Bench:
    """Open a bench and check every case.

    Raises UserError naming the file and the ids when the list does not hold unique ids, a file is missing, a mask and
    its source differ in size, a mask is empty, or cases.csv does not list the same ids.
    """
    ids = _read_ids(folder)
    _check_present(folder, ids)
    for case_id in ids:
        _check_mask(folder, case_id)
    return Bench(folder, ids, _read_origins(folder / "cases.csv", ids))


def _read_ids(folder: Path) -> tuple[int, ...]:
    path = folder / "id_list.npy"
    if not path.is_file():
        raise UserError(f"{path}: missing; a bench in COCOEE's layout has this file")
    try:
        ids = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of ids: {one_line(error)}") from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) == 0:
        raise UserError(f"{path}: must be a list of integers, but is {ids.dtype} of shape {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{path}: id {values[counts.argmax()]} is listed {counts.max()} times")
    return tuple(int(i) for i in ids)


def _check_present(folder: Path, ids: Sequence[int]) -> None:
    for path_of in (source_path, mask_path, exemplar_path):
        missing = [i for i in ids if not path_of(folder, i).is_file()]
        if missing:
            named = ", ".join(str(i) for i in missing[:_MAX_NAMED])
            more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            raise UserError(f"{path_of(folder, missing[0])}: missing (ids without this file: {named}{more})")


def _check_mask(folder: Path, case_id: int) -> None:
    path = mask_path(folder, case_id)
    mask = read_mask(path)
    width, height = image_size(source_path(folder, case_id))
    if mask.shape != (height, width):
        mask_height, mask_width = mask.shape
        raise UserError(
            f"{path}: the mask of id {case_id} is {mask_width} x {mask_height} px, its source {width} x {height} px"
        )
    if not mask.any():
        raise UserError(f"{path}: the mask of id {case_id} is empty: no pixel is marked for repainting")


def _read_origins(path: Path, ids: Sequence[int]) -> tuple[Origin, ...] | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = set(_COLUMNS) - set(columns)
        if missing:
            raise UserError(f"{path}: column {min(missing)} is missing")
        rows = list(reader)
    if [row["case_id"] for row in rows] != [str(i) for i in ids]:
        raise UserError(f"{path}: does not list the same ids in the same order as id_list.npy")
    attributes = [column for column in columns if column not in _COLUMNS]
    return tuple(_origin(row, attributes) for row in rows)


def _origin(row: Mapping[str, str | None], attributes: Sequence[str]) -> Origin:
    case_id, source_image_id, source_box_id, *exemplar = (row[column] or "" for column in _COLUMNS)
    exemplar_box_id, exemplar_label, exemplar_caption = exemplar
    return Origin(
        int(case_id),
        source_image_id,
        source_box_id,
        exemplar_box_id,
        exemplar_label,
        exemplar_caption,
        _truth(row, attributes, _EXEMPLAR),
        _truth(row, attributes, _SOURCE),
    )


def _truth(row: Mapping[str, str | None], columns: Iterable[str], prefix: str) -> AttributeValues:
    return {c.removeprefix(prefix): value for c in columns if c.startswith(prefix) and (value := row[c])}
