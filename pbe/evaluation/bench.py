"""A bench in COCOEE's file layout (section 4.1): cases of a source, a mask and an exemplar.

    id_list.npy                            int64, the case ids
    GT_3500/{id:012d}_GT.png               the source, which is also what was there
    Mask_bbox_3500/{id:012d}_mask.png      255 = repaint
    Ref_3500/{id:012d}_ref.png             the exemplar, any size
    cases.csv                              ours, optional: where each case comes from and what its exemplar shows

The folder names are part of the layout whatever the number of cases. Results are `{id:012d}.png` in a folder of their
own. Nothing is held in memory: a case is decoded when asked for.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.dataset.images import read_image
from pbe.demo.scenes import Attributes
from pbe.errors import UserError
from pbe.method.windows import mask_box
from pbe.runtime.files import atomic_file

Image = NDArray[np.uint8]
Box = tuple[int, int, int, int]

_SHOWN = 3  # files named in an error about many


@dataclass(frozen=True)
class Case:
    """One edit to make: `source` (H, W, 3) and `exemplar` (h, w, 3) uint8 RGB, `mask` (H, W) uint8 0/1, 1 = repaint."""

    id: int
    source: Image
    mask: Image
    exemplar: Image

    @property
    def box(self) -> Box:
        """The mask's bounding box, last row and column included."""
        return mask_box(self.mask)


@dataclass(frozen=True)
class Origin:
    """A row of cases.csv; the attributes are empty where the truth is not known."""

    case_id: int
    source_image_id: str
    source_box_id: str
    exemplar_box_id: str
    exemplar_label: str
    Shape: str = ""
    Colour: str = ""
    Pattern: str = ""
    SecondColour: str = ""
    SourceShape: str = ""
    SourceColour: str = ""
    SourcePattern: str = ""
    SourceSecondColour: str = ""

    @property
    def exemplar_truth(self) -> Attributes | None:
        return Attributes(self.Shape, self.Colour, self.Pattern, self.SecondColour) if self.Shape else None

    @property
    def source_truth(self) -> Attributes | None:
        words = (self.SourceShape, self.SourceColour, self.SourcePattern, self.SourceSecondColour)
        return Attributes(*words) if self.SourceShape else None


@dataclass(frozen=True)
class Bench:
    """A checked bench; `origins` is None for a bench without cases.csv, as the real COCOEE is."""

    folder: Path
    ids: tuple[int, ...]
    origins: tuple[Origin, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def case(self, case_id: int) -> Case:
        """Decode one case."""
        with PillowImage.open(mask_path(self.folder, case_id)) as opened:
            mask = (np.asarray(opened.convert("L")) > 127).astype(np.uint8)
        source = read_image(source_path(self.folder, case_id))
        return Case(case_id, source, mask, read_image(exemplar_path(self.folder, case_id)))

    def head(self, num_cases: int) -> "Bench":
        """The first cases only."""
        origins = None if self.origins is None else self.origins[:num_cases]
        return Bench(self.folder, self.ids[:num_cases], origins)

    @property
    def num_reused_boxes(self) -> int:
        """How many cases repaint a box that an earlier case repaints too."""
        return 0 if self.origins is None else len(self) - len({o.source_box_id for o in self.origins})

    @property
    def exemplar_truth(self) -> tuple[Attributes, ...] | None:
        """What the exemplars show, in case order; None unless it is known of every case."""
        truth = [o.exemplar_truth for o in self.origins or ()]
        known = tuple(t for t in truth if t is not None)
        return known if known and len(known) == len(self) else None

    @property
    def source_truth(self) -> tuple[Attributes, ...] | None:
        """What the boxes showed before the edit, in case order; None unless it is known of every case."""
        truth = [o.source_truth for o in self.origins or ()]
        known = tuple(t for t in truth if t is not None)
        return known if known and len(known) == len(self) else None


def source_path(folder: Path, case_id: int) -> Path:
    return folder / "GT_3500" / f"{case_id:012d}_GT.png"


def mask_path(folder: Path, case_id: int) -> Path:
    return folder / "Mask_bbox_3500" / f"{case_id:012d}_mask.png"


def exemplar_path(folder: Path, case_id: int) -> Path:
    return folder / "Ref_3500" / f"{case_id:012d}_ref.png"


def result_path(folder: Path, case_id: int) -> Path:
    return folder / f"{case_id:012d}.png"


def write_image(path: Path, image: Image) -> None:
    """Write a PNG, (H, W, 3) RGB or (H, W) grey uint8, whole or not at all."""
    with atomic_file(path) as part:
        PillowImage.fromarray(image).save(part, format="PNG")


def write_case(folder: Path, case: Case) -> None:
    """Write the three files of a case; the folders are made when absent."""
    for path, image in (
        (source_path(folder, case.id), case.source),
        (mask_path(folder, case.id), case.mask * np.uint8(255)),
        (exemplar_path(folder, case.id), case.exemplar),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)


def write_index(folder: Path, origins: Sequence[Origin]) -> None:
    """Write id_list.npy and cases.csv, in the order of `origins`."""
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Origin)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(o) for o in origins)
    np.save(folder / "id_list.npy", np.array([o.case_id for o in origins], np.int64))


def read_bench(folder: Path) -> Bench:
    """Open a bench and check every case of it.

    Raises UserError naming the file and the ids when the list is not one of unique ids, a file is missing, a mask has
    another size than its source, a mask is empty, or cases.csv does not follow the list.
    """
    ids = _read_ids(folder)
    _check_present(folder, ids)
    for case_id in ids:
        _check_mask(folder, case_id)
    return Bench(folder, ids, _read_origins(folder / "cases.csv", ids))


def _read_ids(folder: Path) -> tuple[int, ...]:
    path = folder / "id_list.npy"
    if not path.is_file():
        raise UserError(f"{path}: missing; a bench in COCOEE's layout has one")
    try:
        ids = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of ids ({error})") from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) == 0:
        raise UserError(f"{path}: should be a list of whole numbers, is {ids.dtype} of shape {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{path}: id {values[counts.argmax()]} is listed {counts.max()} times")
    return tuple(int(i) for i in ids)


def _check_present(folder: Path, ids: Sequence[int]) -> None:
    for path_of in (source_path, mask_path, exemplar_path):
        missing = [i for i in ids if not path_of(folder, i).is_file()]
        if missing:
            shown = ", ".join(str(i) for i in missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise UserError(f"{path_of(folder, missing[0])}: missing (ids without this file: {shown}{more})")


def _check_mask(folder: Path, case_id: int) -> None:
    path = mask_path(folder, case_id)
    try:
        with PillowImage.open(source_path(folder, case_id)) as source, PillowImage.open(path) as mask:
            sizes, filled = (source.size, mask.size), bool((np.asarray(mask.convert("L")) > 127).any())
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: it or its source cannot be decoded ({error})") from None
    if sizes[0] != sizes[1]:
        (w, h), (mask_w, mask_h) = sizes
        raise UserError(f"{path}: the mask of id {case_id} is {mask_w} x {mask_h} px, its source {w} x {h} px")
    if not filled:
        raise UserError(f"{path}: the mask of id {case_id} is empty: nothing to repaint")


def _read_origins(path: Path, ids: Sequence[int]) -> tuple[Origin, ...] | None:
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        lacking = {f.name for f in fields(Origin)} - set(reader.fieldnames or ())
        if lacking:
            raise UserError(f"{path}: column {min(lacking)} is missing")
        rows = [{f.name: row[f.name] or "" for f in fields(Origin)} for row in reader]
    origins = tuple(Origin(int(row.pop("case_id")), **row) for row in rows)
    if [o.case_id for o in origins] != list(ids):
        raise UserError(f"{path}: does not list the same ids in the same order as id_list.npy")
    return origins
