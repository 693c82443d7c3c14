"""A bench in COCOEE's file layout (section 4.1): cases of a source, a mask and an exemplar.

    id_list.npy                            int64, the case ids
    GT_3500/{id:012d}_GT.png               the source
    Mask_bbox_3500/{id:012d}_mask.png      255 = repaint
    Ref_3500/{id:012d}_ref.png             the exemplar, any size
    Ref_mask_3500/{id:012d}_ref_mask.png   optional, not part of COCOEE: 255 = the exemplar's object
    cases.csv                              optional, not part of COCOEE: the origin of each case (see `Origin`)

The names of the folders are part of the layout, whatever the number of cases. Results are named `{id:012d}.png` and lie
in a separate folder. A case is decoded each time it is read; a bench holds no pixels in memory. `bench_folder` finds a
bench on disk, and `bench_checks` checks its cases.
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage

from pbe.dataset.images import read_image
from pbe.dataset.mask_images import read_mask
from pbe.evaluation.attributes import AttributeValues
from pbe.method.windows import mask_box
from pbe.runtime.files import atomic_file
from pbe.types import Box, Image, Mask

ORIGIN_COLUMNS = (
    "case_id", "source_image_id", "source_box_id", "exemplar_box_id", "exemplar_label", "exemplar_caption",
)  # fmt: skip
EXEMPLAR_PREFIX, SOURCE_PREFIX = "exemplar_", "source_"  # of the columns of attributes


@dataclass(frozen=True)
class Case:
    """One edit: `source` (H, W, 3) and `exemplar` (h, w, 3) uint8 RGB, `mask` (H, W) uint8 0/1, 1 = repaint.

    `exemplar_mask` (h, w) is 1 where the exemplar shows its object, None where that is not known. No painter sees it.
    """

    id: int
    source: Image
    mask: Mask
    exemplar: Image
    exemplar_mask: Mask | None = None

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


class CaseFiles(NamedTuple):
    """The files of one case."""

    source: Path
    mask: Path
    exemplar: Path


@dataclass(frozen=True)
class Bench:
    """The cases of a bench; `origins` is None for a bench without cases.csv, such as COCOEE.

    `other_names` maps the path that a file has in COCOEE to the path that it has here, where they differ.
    """

    folder: Path
    ids: tuple[int, ...]
    origins: tuple[Origin, ...] | None = None
    other_names: Mapping[Path, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def files(self, case_id: int) -> CaseFiles:
        """Return the files of one case, whether they exist or not."""
        expected = (path_of(self.folder, case_id) for path_of in (source_path, mask_path, exemplar_path))
        return CaseFiles(*(self.other_names.get(path, path) for path in expected))

    def case(self, case_id: int) -> Case:
        """Decode one case."""
        files = self.files(case_id)
        shape = exemplar_mask_path(self.folder, case_id)
        return Case(
            case_id,
            read_image(files.source),
            read_mask(files.mask),
            read_image(files.exemplar),
            read_mask(shape) if shape.is_file() else None,
        )

    def head(self, num_cases: int) -> "Bench":
        """Return the bench of the first `num_cases` cases."""
        return self.only(self.ids[:num_cases])

    def only(self, ids: Collection[int]) -> "Bench":
        """Return the bench of those cases whose id is in `ids`, in their present order."""
        wanted = set(ids)
        origins = None if self.origins is None else tuple(o for o in self.origins if o.case_id in wanted)
        return replace(self, ids=tuple(i for i in self.ids if i in wanted), origins=origins)

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


def exemplar_mask_path(folder: Path, case_id: int) -> Path:
    return folder / "Ref_mask_3500" / f"{case_id:012d}_ref_mask.png"


def result_path(folder: Path, case_id: int) -> Path:
    return folder / f"{case_id:012d}.png"


def write_image(path: Path, image: Image) -> None:
    """Write a PNG, (H, W, 3) RGB or (H, W) greyscale uint8, atomically."""
    with atomic_file(path) as part:
        PillowImage.fromarray(image).save(part, format="PNG")


def write_case(folder: Path, case: Case) -> None:
    """Write the files of a case; missing folders are created."""
    write_image(source_path(folder, case.id), case.source)
    write_image(mask_path(folder, case.id), case.mask * np.uint8(255))
    write_image(exemplar_path(folder, case.id), case.exemplar)
    if case.exemplar_mask is not None:
        write_image(exemplar_mask_path(folder, case.id), case.exemplar_mask * np.uint8(255))


def write_index(folder: Path, origins: Sequence[Origin]) -> None:
    """Write id_list.npy and cases.csv, in the order of `origins`."""
    rows = [_origin_row(origin) for origin in origins]
    names = dict.fromkeys(name for o in origins for truth in (o.exemplar_truth, o.source_truth) for name in truth)
    attributes = [prefix + name for prefix in (EXEMPLAR_PREFIX, SOURCE_PREFIX) for name in names]
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*ORIGIN_COLUMNS, *attributes], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    np.save(folder / "id_list.npy", np.array([o.case_id for o in origins], np.int64))


def _origin_row(origin: Origin) -> dict[str, str | int]:
    row: dict[str, str | int] = {column: getattr(origin, column) for column in ORIGIN_COLUMNS}
    for prefix, truth in ((EXEMPLAR_PREFIX, origin.exemplar_truth), (SOURCE_PREFIX, origin.source_truth)):
        row |= {prefix + name: value for name, value in truth.items()}
    return row
