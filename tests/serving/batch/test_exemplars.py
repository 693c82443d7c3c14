"""Rows of `pbe batch` with several exemplars of one object, and with exemplars' masks."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.errors import UserError
from pbe.serving.batch.rows import Row, read_rows, task_of
from pbe.serving.commands.main import main


def row(**fields: Any) -> Row:
    return Row(1, {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", **fields}, Path("in"))


def test_a_row_may_have_several_exemplars_and_a_mask_for_each() -> None:
    for exemplar, mask in (("a.png|b.png", "c.png | d.png"), (["a.png", "b.png"], ["c.png", "d.png"])):
        task = task_of(row(exemplar=exemplar, exemplar_mask=mask))
        assert task.exemplars == (Path("in/a.png"), Path("in/b.png"))
        assert task.exemplar_masks == (Path("in/c.png"), Path("in/d.png"))
        assert len(task.files) == 6
    assert task_of(row(exemplar_mask="")).exemplar_masks == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exemplar": ""}, "exemplar is missing"),
        ({"exemplar": []}, "exemplar is missing"),
        ({"exemplar": "a.png|"}, r"exemplar is 'a.png\|': give the path of an image"),
        ({"exemplar": [1]}, r"exemplar is \[1\]: give the path of an image"),
        ({"exemplar": "a.png|b.png", "exemplar_mask": "c.png"}, "1 exemplar_mask for 2 exemplar: give one for each"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        task_of(row(**fields))


def test_a_picture_has_the_bits_of_pbe_edit(images: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    shown = np.zeros((30, 20), np.uint8)
    shown[5:25, 5:15] = 255
    PILImage.fromarray(shown).save("object.png")
    with Path("rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("name", "source", "mask", "exemplar", "exemplar_mask"), ("a", "s.png", "m.png", "e.jpg|s.png", ""),
             ("b", "s.png", "m.png", "e.jpg", "object.png"), ("c", "s.png", "m.png", "e.jpg", "m.png")]
        )  # fmt: skip
    usual = [f"--model={model_folder}", "--num-steps=2", "--seed=0"]
    assert main(["batch", "--rows=rows.csv", "--out=painted", *usual]) == 2  # row c: the mask has another size
    assert "exemplar mask m.png is 48 x 40" in Path("painted/errors.csv").read_text()

    edit = ["edit", "--source=s.png", "--mask=m.png", "--exemplar=e.jpg", "--out=o.png", *usual[:2]]
    for name, flags in (("a", ["--exemplar=s.png"]), ("b", ["--exemplar-mask=object.png", "--seed=1"])):
        assert main([*edit, *flags]) == 0
        painted = Path("painted/images", f"{name}.png")
        assert np.array_equal(np.asarray(PILImage.open(painted)), np.asarray(PILImage.open("o.png")))
    assert len(json.loads(Path("painted/annotations/instances_train.json").read_text())["images"]) == 2
    assert [each.name for each in read_rows(Path("rows.csv"))] == ["a", "b", "c"]
