"""Rows of `pbe batch` from a data set: every box of a COCO or Pascal VOC folder, crossed with exemplars."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbe.acquisition.importers.annotations import ImportedBox, ImportedImage
from pbe.acquisition.importers.coco import read_coco
from pbe.acquisition.importers.placement import ImportCounts
from pbe.acquisition.importers.voc import read_voc
from pbe.dataset.images import image_size
from pbe.errors import UserError
from pbe.serving.batch.rows import OTHERS, Row
from pbe.settings import Acquire

EXEMPLAR_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif")
HIDDEN_FRAC = 0.5  # a box with at least this share of its area under the painted box is no longer an object

Exemplar = tuple[Path, str]  # the file, and its label or ""


def rows_of_boxes(root: Path, exemplars: Path, split: str | None, per_box: int | None, seed: int) -> list[Row]:
    """Return a row for each box of the data set in `root` and each exemplar, in their order.

    With `per_box`, that many exemplars are drawn for each box by the seed. Only images of `split` are used: train,
    validation or test; None means all. Raises UserError when the folder is neither COCO nor VOC, when nothing is left,
    and what the importers raise.
    """
    found = find_exemplars(exemplars)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for image in _images(root):
        if not image.boxes or image.found_by == "missing" or (split and image.split != split):
            continue
        sides = image_size(image.path, str(image.path))
        for place in range(len(image.boxes)):
            for exemplar in _drawn(found, per_box, rng):
                rows.append(_row(len(rows) + 1, image, place, sides, exemplar))
    if not rows:
        raise UserError(f"{root}: no box" + (f" in the split {split}" if split else ""))
    return rows


def find_exemplars(folder: Path) -> list[Exemplar]:
    """Return the exemplars of a folder; a folder in it names their label, and those beside it take their box's label.

    Raises UserError when there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--exemplars {folder}: no such folder")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.casefold() in EXEMPLAR_SUFFIXES]
    exemplars = [(path, "" if path.parent == folder else path.parent.name) for path in files]
    if not exemplars:
        raise UserError(f"--exemplars {folder}: has no images; put them in it, or in a folder for each label")
    return exemplars


def _images(root: Path) -> Iterator[ImportedImage]:
    if not root.is_dir():
        raise UserError(f"--boxes {root}: no such folder")
    used: dict[str, Any] = {"source": "voc", "root": str(root), "voc_origin": "auto"}  # what the readers use
    settings = Acquire.model_construct(**used)
    if any(path.suffix.casefold() == ".json" for path in root.rglob("*.json")):
        return read_coco(settings, ImportCounts())
    if any(root.rglob("*.xml")):
        return read_voc(settings, ImportCounts())
    raise UserError(f"--boxes {root}: has neither COCO files (*.json) nor Pascal VOC files (*.xml)")


def _drawn(exemplars: Sequence[Exemplar], per_box: int | None, rng: np.random.Generator) -> list[Exemplar]:
    if per_box is None or per_box >= len(exemplars):
        return list(exemplars)
    return [exemplars[n] for n in sorted(rng.choice(len(exemplars), per_box, replace=False))]


def _row(number: int, image: ImportedImage, place: int, sides: tuple[int, int], exemplar: Exemplar) -> Row:
    file, label = exemplar
    box = image.boxes[place]
    others = [each for each in image.boxes if each is not box and _hidden_frac(each, box) < HIDDEN_FRAC]
    fields: dict[str, Any] = {
        "source": str(image.path.resolve()),
        "exemplar": str(file.resolve()),
        "box": _pixels(box, sides),
        "label": label or box.label,
        OTHERS: [{"label": each.label, "box": _pixels(each, sides)} for each in others],
    }
    return Row(number, fields)


def _hidden_frac(box: ImportedBox, by: ImportedBox) -> float:
    (x0, y0, x1, y1), (a0, b0, a1, b1) = box.xyxy, by.xyxy
    covered = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
    return covered / ((x1 - x0) * (y1 - y0))


def _pixels(box: ImportedBox, sides: tuple[int, int]) -> list[float]:
    return [round(share * sides[n % 2], 4) for n, share in enumerate(box.xyxy)]
