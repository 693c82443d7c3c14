"""`pbe batch`: rows and boxes in, pictures and COCO boxes out; it continues after a kill, and counts what fails."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from pbe.acquisition.importers.coco import read_coco
from pbe.acquisition.importers.placement import ImportCounts
from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.serving.batch.boxes import rows_of_boxes
from pbe.serving.batch.painting import Counts, Options, Record, coco_of, paint_rows
from pbe.serving.batch.rows import Row, read_rows, task_of
from pbe.serving.commands.main import main
from pbe.serving.editor import EditOptions
from tests.support import parameters

OPTIONS = Options(EditOptions(num_steps=2), seed=7)


def batch(*arguments: str) -> int:
    """Run `pbe batch` in this process and return its exit code."""
    return main(["batch", "--num-steps=2", *arguments])


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def five_rows(images: Path) -> Path:
    columns = ("source", "mask", "box", "exemplar", "label", "seed")
    rows = [
        ("s.png", "", "8 10 30 25", "e.jpg", "Cup", 3),
        ("s.png", "m.png", "", "e.jpg", "Cup", 3),
        ("s.png", "", "0 0 20.5 20", "e.jpg", "Spoon", ""),
        ("s.png", "", "20 20 90 90", "e.jpg", "", ""),
        ("s.png", "", "8 10 30 25", "s.png", "Cup", ""),
    ]
    return write_csv(images / "rows.csv", columns, rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_picture_has_the_bits_of_pbe_edit(images: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "painted"
    assert batch(f"--rows={five_rows(images)}", f"--out={out}", f"--model={model_folder}") == 0

    files = [
        f"--{name}={images / file}" for name, file in (("source", "s.png"), ("mask", "m.png"), ("exemplar", "e.jpg"))
    ]
    edited = ["edit", *files, "--num-steps=2", f"--model={model_folder}"]
    assert main([*edited, "--seed=3", f"--out={tmp_path / 'edit.png'}"]) == 0
    by_edit = (tmp_path / "edit.png").read_bytes()
    assert by_edit == (out / "images" / "000003.png").read_bytes()  # line 3 of the file: the mask
    assert by_edit == (out / "images" / "000002.png").read_bytes()  # line 2: the box around the same pixels
    assert by_edit != (out / "images" / "000006.png").read_bytes()


def test_the_coco_file_has_the_boxes_of_what_was_painted(images: Path, painter: Painter, tmp_path: Path) -> None:
    out = tmp_path / "painted"
    rows = read_rows(five_rows(images))
    assert paint_rows(painter, rows, out, OPTIONS, {}) == Counts(painted=5, kept=0, failed=0)

    coco = json.loads((out / "annotations" / "instances_train.json").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    found = [(each["image_id"], names[each["category_id"]], each["bbox"]) for each in coco["annotations"]]
    assert found == [
        (2, "Cup", [8, 10, 22, 15]),
        (3, "Cup", [8, 10, 22, 15]),
        (4, "Spoon", [0, 0, 21, 20]),
        (5, "object", [20, 20, 28, 20]),  # clipped to 48 x 40
        (6, "Cup", [8, 10, 22, 15]),
    ]
    assert [image["seed"] for image in coco["images"]] == [3, 3, 9, 10, 11]  # given, or 7 and the row's place
    for image, (_, _, (x, y, w, h)) in zip(coco["images"], found, strict=True):
        source = np.asarray(PILImage.open(images / image["source"]))
        changed = (np.asarray(PILImage.open(out / image["file_name"])) != source).any(2)
        assert changed[y : y + h, x : x + w].any()
        changed[y : y + h, x : x + w] = False
        assert not changed.any()


def test_each_region_of_a_mask_has_its_box(images: Path, painter: Painter, tmp_path: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[2:8, 2:10] = mask[30:38, 36:46] = 255
    PILImage.fromarray(mask).save(images / "two.png")
    row = Row(1, {"source": "s.png", "mask": "two.png", "exemplar": "e.jpg"}, images)
    paint_rows(painter, [row], tmp_path / "out", OPTIONS, {})
    coco = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [each["bbox"] for each in coco["annotations"]] == [[36, 30, 10, 8], [2, 2, 8, 6]]


def test_a_killed_batch_continues_and_ends_the_same(images: Path, painter: Painter, tmp_path: Path) -> None:
    rows = read_rows(five_rows(images))
    paint_rows(painter, rows, tmp_path / "whole", OPTIONS, {})

    def stop_after_three(done: int, total: int, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        paint_rows(painter, rows, out, OPTIONS, {}, stop_after_three)
    journal = out / "done.jsonl"
    journal.write_text(journal.read_text()[:-40])  # killed while it wrote the third line
    (out / "images" / ".000005.part.png").write_bytes(b"half a picture")  # and, in another run, the fourth picture

    assert paint_rows(painter, rows, out, OPTIONS, {}) == Counts(painted=3, kept=2, failed=0)
    whole, killed = contents(tmp_path / "whole"), contents(out)
    assert {**whole, "done.jsonl": b""} == {**killed, "done.jsonl": b""}
    assert paint_rows(painter, rows, out, OPTIONS, {}) == Counts(painted=0, kept=5, failed=0)


def test_rows_are_painted_again_when_their_fields_or_files_change(
    images: Path, painter: Painter, tmp_path: Path
) -> None:
    rows, out = read_rows(five_rows(images)), tmp_path / "out"
    paint_rows(painter, rows, out, OPTIONS, {})
    before = contents(out / "images")
    PILImage.open(images / "e.jpg").rotate(90).save(images / "e.jpg")  # four rows show it
    (out / "images" / "000006.png").unlink()
    assert paint_rows(painter, rows, out, OPTIONS, {}).painted == 5
    changed = [name for name, data in contents(out / "images").items() if data != before[name]]
    assert changed == ["000002.png", "000003.png", "000004.png", "000005.png"]

    other = [replace(rows[0], fields={**rows[0].fields, "seed": "4"}), *rows[1:]]
    assert paint_rows(painter, other, out, OPTIONS, {}).painted == 1
    assert paint_rows(painter, rows, out, OPTIONS, {}).painted == 1  # the picture of seed 4 has its name


def test_a_folder_of_other_conditions_is_refused(images: Path, painter: Painter, tmp_path: Path) -> None:
    rows, out = read_rows(five_rows(images))[:1], tmp_path / "out"
    paint_rows(painter, rows, out, OPTIONS, {"model": "a"})
    with pytest.raises(UserError, match="was painted with model a, not b; name a new folder"):
        paint_rows(painter, rows, out, OPTIONS, {"model": "b"})
    with pytest.raises(UserError, match="was painted with num_steps 2, not 3"):
        paint_rows(painter, rows, out, Options(EditOptions(num_steps=3), seed=7), {"model": "a"})
    with pytest.raises(UserError, match="holds no batch"):
        paint_rows(painter, rows, images, OPTIONS, {})


def test_rows_that_cannot_be_painted_are_listed_with_number_and_reason(
    images: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "damaged.png").write_bytes((images / "s.png").read_bytes()[:200])
    columns = ("name", "source", "mask", "box", "exemplar", "seed")
    faulty = [
        ("a", "none.png", "", "0 0 9 9", "e.jpg", "", "none.png: no such file"),
        ("b", "damaged.png", "", "0 0 9 9", "e.jpg", "", "cannot be decoded"),
        ("c", "s.png", "", "0 0 9", "e.jpg", "", "box is '0 0 9': give four numbers"),
        ("d", "s.png", "", "50 0 60 9", "e.jpg", "", "has no pixel in the picture of 48 x 40 px"),
        ("e", "s.png", "m.png", "0 0 9 9", "e.jpg", "", "has a mask and a box"),
        ("f", "s.png", "", "", "e.jpg", "", "needs a mask or a box"),
        ("g", "s.png", "", "0 0 9 9", "", "", "exemplar is missing"),
        ("h", "s.png", "", "0 0 9 9", "e.jpg", "-1", "seed is '-1'"),
        ("i", "s.png", "e.jpg", "", "e.jpg", "", "e.jpg is 20 x 30 but source"),
        ("j", "s.png", "", "0 0 9 9", "e.jpg", str(2**63), "seed is 9223372036854775808: give"),
    ]
    good = ("good", "s.png", "", "0 0 9 9", "e.jpg", "")
    rows = write_csv(images / "rows.csv", columns, [*(row[:-1] for row in faulty), good])
    out = tmp_path / "out"
    command = (f"--rows={rows}", f"--out={out}", f"--model={model_folder}")

    assert batch(*command) == 2
    assert f"error: 10 of 11 rows could not be painted; see {out / 'errors.csv'}\n" in capsys.readouterr().err
    listed = list(csv.DictReader((out / "errors.csv").open(newline="")))
    assert [(row["row"], row["name"]) for row in listed] == [(str(n), row[0]) for n, row in enumerate(faulty, 2)]
    for row, (*_, reason) in zip(listed, faulty, strict=True):
        assert reason in row["reason"]
    assert [path.name for path in (out / "images").iterdir()] == ["good.png"]

    PILImage.open(images / "s.png").save(images / "none.png")
    assert batch(*command) == 2
    assert "1 pictures painted, 1 were there" in capsys.readouterr().out
    assert len(list(csv.DictReader((out / "errors.csv").open(newline="")))) == 9


MISTAKES = [
    (
        "source,box,exemplar,lable\n",
        "unknown 'lable'; a row has name, source, mask, box, exemplar, exemplar_mask, label, seed",
    ),
    ("source,box,exemplar\n", "has no rows"),
    ("source;box;exemplar\ns.png;0 0 9 9\n", "line 2: 2 fields, but 3 columns"),
    ("name,source,box,exemplar\nA,s.png,0 0 9 9,e.jpg\na,s.png,0 0 9 9,e.jpg\n", "rows 2 and 3 have the same name 'a'"),
    ("name,source,box,exemplar\n../a,s.png,0 0 9 9,e.jpg\n", "row 2: '../a' cannot be the name of a file"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_a_mistake_in_the_file_is_one_line_before_anything_is_painted(
    text: str, words: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "rows.csv").write_text(text)
    assert batch(f"--rows={images / 'rows.csv'}", f"--out={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_jsonl_rows_have_types_and_name_the_other_objects(images: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"source": "s.png", "box": [0, 0, 9.5, 9], "exemplar": "e.jpg", "seed": 5, "name": "first"},
        {
            "source": "s.png",
            "box": [0, 0, 9, 9],
            "exemplar": "e.jpg",
            "others": [{"label": "Cup", "box": [9, 9, 19, 19]}],
        },
    ]
    path = images / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = read_rows(path)
    assert (first.name, second.name) == ("first", "000002")
    assert task_of(first).seed == 5
    assert task_of(first).box == (0, 0, 9.5, 9)
    assert task_of(second).others == (("Cup", (9, 9, 19, 19)),)
    path.write_text('{"source": "s.png"}\n[1]\n')
    with pytest.raises(UserError, match="line 2: holds list, not a JSON object"):
        read_rows(path)


def voc_folder(root: Path) -> Path:
    """Write one picture of 60 x 40 px with a Cup, a Spoon in the Cup's box, and a Fork away from both."""
    boxes = {"Cup": (1, 1, 30, 30), "Spoon": (5, 5, 20, 20), "Fork": (41, 11, 50, 30)}
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(root / "JPEGImages" / "a.jpg")
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, (x0, y0, x1, y1) in boxes.items()
    )
    (root / "Annotations" / "a.xml").write_text(f"<annotation><filename>a.jpg</filename>{objects}</annotation>")
    return root


def test_every_box_of_a_data_set_is_crossed_with_the_exemplars(images: Path, painter: Painter, tmp_path: Path) -> None:
    exemplars = tmp_path / "exemplars"
    (exemplars / "Knife").mkdir(parents=True)
    for name in ("plain.png", "Knife/1.png", "Knife/2.png"):
        PILImage.open(images / "e.jpg").save(exemplars / name)
    rows = rows_of_boxes(voc_folder(tmp_path / "voc"), exemplars, None, None, seed=0)
    assert [row.fields["label"] for row in rows] == [
        label for own in ("Cup", "Spoon", "Fork") for label in ("Knife", "Knife", own)
    ]
    assert rows[0].fields["box"] == [0, 0, 30, 30]
    assert [each["label"] for each in rows[0].fields["others"]] == ["Fork"]  # the Spoon is painted over
    assert [each["label"] for each in rows[3].fields["others"]] == ["Cup", "Fork"]
    assert len(rows_of_boxes(tmp_path / "voc", exemplars, None, 2, seed=0)) == 6
    with pytest.raises(UserError, match="no box in the split validation"):
        rows_of_boxes(tmp_path / "voc", exemplars, "validation", None, seed=0)

    paint_rows(painter, rows[:1], tmp_path / "out", OPTIONS, {})
    settings = parameters.acquire(source="coco", root=str(tmp_path / "out"))
    (image,) = read_coco(settings, ImportCounts())  # a data set that the project reads
    assert image.split == "train"
    found = [(box.label, [round(v, 6) for v in box.xyxy]) for box in image.boxes]
    assert found == [("Knife", [0, 0, 0.5, 0.75]), ("Fork", [round(40 / 60, 6), 0.25, round(50 / 60, 6), 0.75])]


def test_the_coco_file_says_which_objects_were_painted() -> None:
    row = Row(4, {"source": "s.png", "exemplar": "e.jpg"})
    record = Record("k", "n", 1, 10, 8, 0, [("B", (1, 2, 4, 6))], [("A", (0, 0, 1, 1))], ["note"])
    coco = coco_of([(row, record)])
    assert coco["categories"] == [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]
    keys = ("id", "image_id", "category_id", "bbox", "area", "painted")
    assert [[each[key] for key in keys] for each in coco["annotations"]] == [
        [1, 4, 2, [1, 2, 3, 4], 12, True],
        [2, 4, 1, [0, 0, 1, 1], 1, False],
    ]
