"""Hugging Face datasets on disk: splits, the forms that objects come in, and errors."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PillowImage

from pbe.acquisition.download import acquire
from pbe.acquisition.importers.annotations import ImportedImage
from pbe.acquisition.importers.huggingface import read_huggingface
from pbe.acquisition.importers.placement import ImportCounts
from pbe.errors import UserError
from tests.support import parameters

CLASSES = ClassLabel(names=["Cat", "Dog"])
BOX = List(Value("float64"), length=4)
LISTS = {"bbox": List(BOX), "category": List(CLASSES)}


def png(number: int) -> dict[str, Any]:
    content = io.BytesIO()
    PillowImage.fromarray(np.full((40, 80, 3), number * 20, np.uint8)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def dataset(objects: list[Any], form: Any = LISTS, images: list[Any] | None = None) -> Dataset:
    rows = {"image": images or [png(n) for n in range(len(objects))], "objects": objects}
    return Dataset.from_dict(rows, features=Features({"image": Image(), "objects": form}))


def read(root: Path, **options: Any) -> tuple[list[ImportedImage], dict[str, int]]:
    counts = ImportCounts()
    settings = parameters.acquire(source="huggingface", root=str(root), huggingface=parameters.huggingface(**options))
    return list(read_huggingface(settings, counts)), dict(counts.skipped)


CAT, DOG = {"bbox": [[8, 4, 32, 20]], "category": [0]}, {"bbox": [[8, 4, 32, 20]], "category": [1]}


def test_splits_keep_their_names_and_others_are_counted(tmp_path: Path) -> None:
    parts = {"train": dataset([CAT, DOG]), "validation": dataset([DOG]), "test": dataset([CAT, CAT])}
    DatasetDict(parts).save_to_disk(tmp_path / "data")
    settings = parameters.acquire(source="huggingface", root=str(tmp_path / "data"), workers=2)
    report = acquire(settings, 0, tmp_path / "raw")
    assert report.outcomes == {"train": {"ok": 2}, "validation": {"ok": 1}}
    assert report.skipped == {"images of split test": 2}
    again = acquire(settings, 0, tmp_path / "raw")
    assert (again.num_present, again.num_bytes) == (3, report.num_bytes)


FORMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "lists in a dict": (LISTS, CAT, {}),
    "dicts in a list": (List({"bbox": BOX, "category": CLASSES}), [{"bbox": [8, 4, 32, 20], "category": 0}], {}),
    "names": (LISTS | {"category": List(Value("string"))}, CAT | {"category": ["Cat"]}, {}),
    "corners": (LISTS, CAT | {"bbox": [[8, 4, 40, 24]]}, {"box_format": "xyxy"}),
    "shares": (LISTS, CAT | {"bbox": [[0.1, 0.1, 0.4, 0.5]]}, {"normalised": True}),
    "other names": ({"box": List(BOX), "label": List(CLASSES)}, {"box": [[8, 4, 32, 20]], "label": [0]},
                    {"bbox": "box", "category": "label"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_box(tmp_path: Path, name: str) -> None:
    form, objects, options = FORMS[name]
    dataset([objects], form).save_to_disk(tmp_path / "data")
    ((image,), _) = read(tmp_path / "data", **options)
    (box,) = image.boxes
    assert (image.split, box.label) == (None, "Cat")
    np.testing.assert_allclose(box.xyxy, (0.1, 0.1, 0.5, 0.6))
    assert image.read is not None
    assert image.read() == png(0)["bytes"]


ERRORS = [
    (CAT, {"image": "picture"}, r"data: no column 'picture' \(acquire.huggingface.image\); columns found: image, obj"),
    (CAT, {"bbox": "box"}, r"data: row 0: its objects have no 'box'; set its name in acquire.huggingface"),
    (CAT | {"category": [None]}, {}, r"data: row 0: category None is not among the classes"),
    (CAT | {"bbox": [[8, float("nan"), 1, 1]]}, {}, r"data: row 0: bbox: .* are not all finite"),
]


@pytest.mark.parametrize(("objects", "options", "message"), ERRORS)
def test_an_error_names_its_place(tmp_path: Path, objects: Any, options: dict[str, str], message: str) -> None:
    dataset([objects]).save_to_disk(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "data", **options)


def test_a_damaged_image_is_lost_and_a_missing_one_is_named(tmp_path: Path) -> None:
    broken = {"bytes": b"no picture", "path": None}
    dataset([CAT, CAT, DOG], images=[broken, png(1), png(2)]).save_to_disk(tmp_path / "data")
    settings = parameters.acquire(
        source="huggingface", root=str(tmp_path / "data"), max_lost_frac=0.5, validation_frac=0.5
    )
    outcomes = acquire(settings, 0, tmp_path / "raw").outcomes
    assert sum(split.get("corrupt", 0) for split in outcomes.values()) == 1
    dataset([CAT], images=[None]).save_to_disk(tmp_path / "none")
    with pytest.raises(UserError, match=r"none: row 0: no image; the column must be one of datasets\.Image"):
        read(tmp_path / "none")
