"""The examples of docs/own-data.md, run without changes through acquire and filter."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import yaml

from flows.acquire import acquire
from flows.filter import filter_
from pbe.dataset.object_masks import unpack_mask
from pbe.errors import UserError
from pbe.layout import BOXES, FIFTYONE_HOME
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from pbe.settings import load_settings

ROOT = Path(__file__).parents[3]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "own-data.md").read_text(), flags=re.M)[1:]
BLOCKS = {
    section.split("\n", 1)[0]: dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.M | re.S))
    for section in SECTIONS
    if "```" in section
}
LARGER = BLOCKS.pop("From your folder to a registered model")["yaml"]
CAT, DOG = ("Cat", 200, 120, 360, 360), ("Dog", 80, 100, 380, 360)
EXPECTED = {
    "groups": [CAT, DOG, ("Duck", 300, 200, 420, 300)],
    "csv": [CAT, DOG, ("Duck", 300, 200, 420, 300), ("Duck", 100, 220, 230, 330)],
    "coco": [CAT, DOG],
    "yolo": [CAT, ("Dog", 80, 101, 380, 360), ("Dog", 300, 199, 420, 300)],
    "voc": [("cat", *CAT[1:]), ("dog", *CAT[1:]), ("pond", *CAT[1:])],
    "masks": [CAT, DOG],
    "fiftyone": [("Cat", 198, 120, 358, 360), ("Dog", 77, 96, 378, 355)],
    "huggingface": [CAT, DOG],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the examples, with three pictures and the project's Python."""
    (tmp_path / "pictures").mkdir()
    for name in ("cat", "dog", "pond"):
        pixels = np.random.default_rng(ord(name[0])).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{name}.jpg"), pixels)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def boxes_of(folder: Path, example: dict[str, str]) -> list[tuple[Any, ...]]:
    """Acquire and filter with params.yaml and the example's keys; return the kept boxes and their shapes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in yaml.safe_load(example["yaml"])["acquire"].items():
        section = params["acquire"]
        section[key] = section[key] | value if isinstance(value, dict) else value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_settings(folder / "params.yaml")
    acquire(settings, folder)
    filter_(settings, folder)
    boxes = pl.read_parquet(folder / BOXES / "boxes.parquet").sort("image_id", "box_id")
    assert set(boxes["split"]) == {"train", "validation"}
    return boxes.select("label", "x0", "y0", "x1", "y1", "object_mask").rows()


def test_every_source_has_an_example() -> None:
    assert set(BLOCKS) == set(EXPECTED)


def test_the_keys_for_photographs_at_512_px_are_accepted(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in yaml.safe_load(LARGER).items():
        params[section] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert load_settings(tmp_path / "params.yaml").train.lr == 1e-5


@pytest.mark.parametrize("source", sorted(set(EXPECTED) - {"fiftyone"}))
def test_the_example_gives_its_boxes(folder: Path, source: str) -> None:
    example = BLOCKS[source]
    if "bash" in example:
        subprocess.run(["bash", "-euc", example["bash"]], check=True, env={"PATH": os.environ["PATH"]})
    else:
        exec(compile(example["python"], "docs/own-data.md", "exec"), {})
    found = boxes_of(folder, example)
    assert [row[:5] for row in found] == EXPECTED[source]
    shapes = [row[5] is not None for row in found]
    assert shapes == {"coco": [True, False], "yolo": [False, True, False], "masks": [True, True]}.get(
        source, [False] * len(found)
    )


def test_the_example_with_fiftyone_gives_its_boxes_and_masks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = np.indices((12, 10)).sum(0) > 8
    with running_mongod(folder / FIFTYONE_HOME) as uri:
        monkeypatch.setenv("FIFTYONE_DATABASE_URI", uri)
        with connected_fiftyone(uri, folder / FIFTYONE_HOME) as fo:
            exec(compile(BLOCKS["fiftyone"]["python"], "docs/own-data.md", "exec"), {})
            sample = fo.load_dataset("my-data").match_tags("val").first()
            sample["animals"].detections[0]["mask"] = shape
            sample.save()
        found = boxes_of(folder, BLOCKS["fiftyone"])
        no_dataset = "no FiftyOne dataset is called 'other'; existing datasets in .*: my-data$"
        for key, message in (("root: my-data", no_dataset),
                             ("field: animals", "'my-data' has no field 'other' of Detections")):  # fmt: skip
            wrong = BLOCKS["fiftyone"]["yaml"].replace(key, f"{key.split(':')[0]}: other")
            with pytest.raises(UserError, match=message):
                boxes_of(folder, {"yaml": wrong})
    assert [row[:5] for row in found] == EXPECTED["fiftyone"]
    assert found[0][5] is None
    np.testing.assert_array_equal(unpack_mask(found[1][5]), shape)
