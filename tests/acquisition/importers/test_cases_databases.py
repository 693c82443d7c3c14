"""Cases of own data: Hugging Face datasets in every form that people have, FiftyOne's databases, and PNG text."""

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as Picture
from PIL.PngImagePlugin import PngInfo

from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.dataset.object_masks import unpack_mask
from pbe.demo.tiny_sets import BOX, csv, picture, write
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.fiftyone_default import running_default_database
from pbe.runtime.mongod import running_mongod
from tests.support import parameters
from tests.support.own_cases import imported

CAT = ("Cat", *BOX)
OBJECTS = {"bbox": [[20, 60, 120, 100], [150, 60, 120, 100]], "category": [0, 0]}
BOTH = [CAT, ("Cat", 150, 60, 270, 160)]
FEATURES = Features({
    "image": Picture(),
    "objects": {"bbox": List(List(Value("float32"), length=4)), "category": List(ClassLabel(names=["Cat"]))},
})  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-data"


def dataset(root: Path, num: int = 4) -> Dataset:
    images = [str(picture(root.parent / f"pictures/{n}.jpg")) for n in range(num)]
    return Dataset.from_dict({"image": images, "objects": [OBJECTS] * num}, features=FEATURES)


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas", "arrow"])
def test_a_dataset_saved_with_a_format_is_read(root: Path, form: str) -> None:
    dataset(root).with_format(form).save_to_disk(root)
    assert imported("huggingface", root).all_boxes() == BOTH * 4


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_parquet_and_arrow_files_are_read_with_their_splits(root: Path, suffix: str) -> None:
    whole = dataset(root)
    for split, rows in (("train", range(3)), ("validation", range(3, 4)), ("test", range(2))):
        part = whole.select(list(rows))
        place = root / "data" / f"{split}-00000-of-00001.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "parquet":
            part.to_parquet(place, batch_size=2)
        else:
            part.save_to_disk(root.parent / split)
            (root.parent / split / "data-00000-of-00001.arrow").rename(place)
    found = imported("huggingface", root)
    assert found.all_boxes() == BOTH * 4
    assert (found.num_images("train"), found.num_images("validation")) == (3, 1)
    assert found.report.skipped == {"images of split test": 2}


def test_an_imagefolder_with_metadata_is_read(root: Path) -> None:
    for split, numbers in (("train", "012"), ("val", "34")):
        rows = []
        for n in numbers:
            picture(root / split / f"{n}.jpg")
            rows.append(json.dumps({"file_name": f"{n}.jpg", "objects": OBJECTS | {"category": ["Cat", "Cat"]}}))
        write(root / split / "metadata.jsonl", "\n".join(rows))
    found = imported("huggingface", root)
    assert found.all_boxes() == BOTH * 5
    assert found.num_images("validation") == 2


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_the_columns_width_and_height_are_checked_against_the_picture(root: Path, kind: str) -> None:
    features = Features(dict(FEATURES) | {"width": Value("int32"), "height": Value("int32")})
    images = [str(picture(root.parent / f"pictures/{n}.jpg")) for n in range(2)]
    objects = {"bbox": [[40, 120, 240, 200]], "category": [0]}
    rows = {"image": images, "objects": [objects] * 2, "width": [640] * 2, "height": [480] * 2}
    made = Dataset.from_dict(rows, features=features)
    root.mkdir()
    made.save_to_disk(root) if kind == "saved" else made.to_parquet(root / "train.parquet")
    found = imported("huggingface", root)
    assert found.all_boxes() == [CAT] * 2
    assert found.report.adjusted == {"images_with_boxes_scaled": 2}


@pytest.mark.parametrize(("file", "message"), [
    ("data.parquet", "data.parquet: not a Parquet file"),
    ("data.arrow", "data.arrow: not an Arrow file"),
    ("state.json", "not a dataset that save_to_disk wrote"),
    ("metadata.jsonl", "metadata.jsonl: line 1: not a JSON file"),
    ("readme.md", "no dataset: nothing that save_to_disk wrote"),
])  # fmt: skip
def test_a_file_that_is_no_dataset_is_named(root: Path, file: str, message: str) -> None:
    write(root / file, "no data")
    with pytest.raises(UserError, match=message):
        imported("huggingface", root)


@pytest.mark.parametrize(("objects", "options", "message"), [
    ({"bbox": [[1, 2, 3, 4]], "category": []}, {}, "row 0: bbox and category are not lists of one length"),
    ({"bbox": [[0.1, 0.2, 0.3, 0.4]], "category": [0]}, {}, "row 0: .* are shares .*huggingface.normalised: true"),
    ({"bbox": [[20, 60, 120, 100]], "category": [0]}, {"normalised": True}, "row 0: .* are pixels; .*: false"),
    ({"bbox": [[20, 60, 120]], "category": [0]}, {}, "row 0: bbox: .* are not 4 numbers"),
    ({"bbox": [None], "category": [0]}, {}, "row 0: bbox: None are not 4 numbers"),
])  # fmt: skip
def test_a_row_that_is_wrong_is_named(root: Path, objects: Any, options: dict[str, Any], message: str) -> None:
    form = {"bbox": List(List(Value("float32"))), "category": List(Value("int64"))}
    features = Features({"image": Picture(), "objects": form})
    images = [str(picture(root.parent / "0.jpg"))]
    Dataset.from_dict({"image": images, "objects": [objects]}, features=features).save_to_disk(root)
    with pytest.raises(UserError, match=message):
        imported("huggingface", root, huggingface=parameters.huggingface(**options))


def add_dataset(folder: Path, name: str) -> None:
    made = fo.Dataset(name, persistent=True)
    for n in range(4):
        sample = fo.Sample(str(picture(folder / f"{n}.jpg")), tags=["test" if n == 3 else "trainee"])
        x = -0.5 / 320 if n == 1 else 20 / 320
        box = [x, 0.25, 120 / 320, 100 / 240]
        detection = fo.Detection(label=" Cat ", bounding_box=box, mask=np.ones((100, 120), bool))
        sample["ground_truth"] = fo.Detections(detections=[detection])
        corners = [(20 / 320, 0.25), (140 / 320, 0.25), (140 / 320, 160 / 240), (20 / 320, 160 / 240)]
        sample["outlines"] = fo.Polylines(polylines=[fo.Polyline(label="Cat", points=[corners], closed=True)])
        made.add_sample(sample)


@pytest.fixture
def default_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose default database has a dataset."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FIFTYONE_DATABASE_DIR", raising=False)
    monkeypatch.delenv("FIFTYONE_CONFIG_PATH", raising=False)
    (tmp_path / ".fiftyone/var/lib/mongo").mkdir(parents=True)
    with running_default_database() as uri, connected_fiftyone(uri, tmp_path / "files"):
        add_dataset(tmp_path, "my-set")
    return tmp_path


def test_a_dataset_of_fiftyones_default_database_is_found(default_home: Path) -> None:
    with running_mongod(default_home / "project") as uri:
        database = Database(uri, default_home / "project", is_projects=True)
        found = imported("fiftyone", Path("my-set"), database, out=default_home / "out")
        assert sorted(found.all_boxes()) == [("Cat", 0, 60, 120, 160), CAT, CAT]
        assert found.report.skipped == {"images of split test": 1}
        assert found.report.adjusted == {"boxes_clipped": 1}
        mask = found.masks["1"][0]
        assert mask is not None
        assert unpack_mask(mask).all()
        lines = imported("fiftyone", Path("my-set"), database, out=default_home / "out", fiftyone={"field": "outlines"})
        assert lines.all_boxes() == [CAT] * 3
        assert all(masks[0] is not None for masks in lines.masks.values())
        for name, field, message in (
            ("other", "ground_truth", r"no FiftyOne dataset is called 'other'; .*project: none.*mongo: my-set"),
            ("my-set", "boxes", r"no field 'boxes' of Detections or Polylines; those that are: ground_truth, outlines"),
        ):
            with pytest.raises(UserError, match=message):
                imported("fiftyone", Path(name), database, out=default_home / "out", fiftyone={"field": field})


def test_a_png_with_long_text_is_acquired(root: Path) -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "x" * 1_200_000, zip=True)
    for n in range(4):
        picture(root / f"images/{n}.png", pnginfo=info if n % 2 else None)
    csv(root, [f"{n}.png,Cat,20,60,140,160" for n in range(4)])
    assert imported("csv", root).all_boxes() == [CAT] * 4
