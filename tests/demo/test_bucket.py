"""The demo's bucket: OpenImages' layout, the planted faults, and the same bytes however it is drawn."""

import csv
import hashlib
import io
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pbe.dataset.openimages import BOX_COLUMNS, BOX_FILES, CLASSES_FILE, CLICK_COLUMNS
from pbe.demo import bucket as bucket_module
from pbe.demo.bucket import LABELS, name_image, write_bucket
from pbe.demo.faults import COPIES, LEAK, SPOILT
from tests.support import parameters

TINY = parameters.world(train_images=120, validation_images=12, fault_frac=0.02)


def rows(folder: Path, key: str) -> list[dict[str, str]]:
    with (folder / "openimages" / key).open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


def image_path(folder: Path, split: str, image_id: str) -> Path:
    return folder / "open-images-dataset" / split / f"{image_id}.jpg"


def test_the_layout_and_the_columns_are_those_of_openimages(bucket: Path) -> None:
    assert len(list(bucket.glob("open-images-dataset/train/*.jpg"))) == 80
    assert len(list(bucket.glob("open-images-dataset/validation/*.jpg"))) == 40
    assert tuple(rows(bucket, BOX_FILES["train"].key)[0]) == BOX_COLUMNS + CLICK_COLUMNS
    assert tuple(rows(bucket, BOX_FILES["validation"].key)[0]) == BOX_COLUMNS
    assert {(r["LabelName"], r["DisplayName"]) for r in rows(bucket, CLASSES_FILE.key)} == {
        (label, shape.capitalize()) for shape, label in LABELS.items()
    }
    assert not list(bucket.rglob(".*"))


def test_image_ids_are_unique_and_have_sixteen_hex_digits() -> None:
    ids = {name_image(seed, split, i) for seed in (0, 1) for split in ("train", "validation") for i in range(50)}
    assert len(ids) == 200
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)


def test_attributes_follow_the_order_of_the_boxes(bucket: Path) -> None:
    boxes = rows(bucket, BOX_FILES["train"].key) + rows(bucket, BOX_FILES["validation"].key)
    attributes = rows(bucket, "world-attributes.csv")
    assert len(boxes) == len(attributes)
    counts: Counter[str] = Counter()
    for box, truth in zip(boxes, attributes, strict=True):
        assert truth["box_id"] == f"{box['ImageID']}_{counts[box['ImageID']]:03d}"
        assert LABELS[truth["Shape"]] == box["LabelName"]
        counts[box["ImageID"]] += 1


def test_boxes_lie_on_whole_pixels(bucket: Path) -> None:
    for row in rows(bucket, BOX_FILES["validation"].key):
        with Image.open(image_path(bucket, "validation", row["ImageID"])) as image:
            width, height = image.size
        for share, side in (("XMin", width), ("XMax", width), ("YMin", height), ("YMax", height)):
            assert float(row[share]) * side == pytest.approx(round(float(row[share]) * side), abs=1e-3)


def test_the_images_have_the_faults_that_are_listed(bucket: Path) -> None:
    train = {path.stem for path in bucket.glob("open-images-dataset/train/*.jpg")}
    listed = rows(bucket, "world-faults.csv")
    kinds = Counter((row["fault"], row["image_id"] in train) for row in listed)
    assert kinds == {
        **{(kind, True): 4 for kind in (*SPOILT, *COPIES, LEAK)},
        **{(kind, False): 2 for kind in (*SPOILT, *COPIES)},
    }
    for row in listed:
        split = "train" if row["image_id"] in train else "validation"
        content = image_path(bucket, split, row["image_id"]).read_bytes()
        if row["fault"] == "exact_duplicate":
            assert content == image_path(bucket, split, row["of"]).read_bytes()
        if row["fault"] == LEAK:
            original = Image.open(image_path(bucket, "validation", row["of"])).convert("L")
            difference = np.asarray(Image.open(io.BytesIO(content)).convert("L"), float) - np.asarray(original, float)
            assert np.abs(difference).mean() < 12


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for name, num_workers in (("one", 1), ("two", 2)):
        write_bucket(tmp_path / name, TINY, seed=1, num_workers=num_workers)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_progress_counts_every_image_once_and_a_complete_bucket_is_not_drawn_again(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_bucket(tmp_path, TINY, seed=1, progress=lambda done, total, note="": calls.append((done, total)))
    assert calls[-1] == (132, 132)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    calls.clear()
    write_bucket(tmp_path, TINY, seed=1, progress=lambda done, total, note="": calls.append((done, total)))
    assert calls == []


def test_another_seed_replaces_the_images(tmp_path: Path) -> None:
    write_bucket(tmp_path, parameters.world(train_images=3, validation_images=2), seed=1)
    write_bucket(tmp_path, parameters.world(train_images=2, validation_images=2), seed=2)
    names = {path.stem for path in tmp_path.glob("open-images-dataset/train/*.jpg")}
    assert names == {name_image(2, "train", 0), name_image(2, "train", 1)}


def test_a_killed_run_is_completed_with_the_same_bytes(bucket: Path, tmp_path: Path) -> None:
    world = parameters.world(train_images=80, validation_images=40, fault_frac=0.05)
    code = (
        "import sys; from pathlib import Path; from pbe.demo.bucket import write_bucket; "
        "from pbe.settings import World; "
        "write_bucket(Path(sys.argv[1]), World.model_validate_json(sys.argv[2]), 3, num_workers=1)"
    )
    folder = tmp_path / "bucket"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), world.model_dump_json()])
    while len(list(folder.glob("open-images-dataset/train/*.jpg"))) < 10:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # the drawing process notices it and exits
    assert not (folder / "openimages" / "world-faults.csv").exists()
    write_bucket(folder, world, seed=3)
    assert digest(folder) == digest(bucket)


def test_an_error_in_a_drawing_process_is_raised(tmp_path: Path) -> None:
    (tmp_path / "world.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bucket(tmp_path, TINY, seed=1)


def test_a_part_drawn_in_this_process_has_the_same_bytes(bucket: Path, tmp_path: Path) -> None:
    world = parameters.world(train_images=80, validation_images=40, fault_frac=0.05)
    bucket_module._empty(tmp_path)
    bucket_module._draw_part(tmp_path, world, 3, part=1, num_parts=2)  # the second part is validation
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("open-images-dataset/validation/*.jpg")}
    assert len(drawn) == 40
    for name, content in drawn.items():
        assert (bucket / "open-images-dataset" / "validation" / name).read_bytes() == content
