"""OpenImages' files: how they are read, which images are chosen, and how errors in them are reported."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pbe.dataset import openimages
from pbe.dataset.openimages import (
    REQUIRED_COLUMNS,
    UnsortedError,
    draw_ranks,
    find_labels,
    number_boxes,
    read_classes,
    read_hierarchy,
    scan_boxes,
    select_images,
    stream_images,
)
from pbe.dataset.table_files import collect
from pbe.errors import UserError

HEADER = ",".join(REQUIRED_COLUMNS)


def boxes_file(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    path = boxes_file(tmp_path, header=HEADER.replace("XMax", "XMaximum"))
    with pytest.raises(UserError, match=r"boxes\.csv: column XMax is missing; columns found: ImageID, .*XMaximum"):
        scan_boxes(path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("")
    with pytest.raises(UserError, match=r"boxes\.csv: the file is empty"):
        scan_boxes(path)
    with pytest.raises(UserError, match=r"boxes\.csv: the file is empty"):
        read_classes(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (scan_boxes, read_classes):
        with pytest.raises(UserError, match=r"gone\.csv: no such file"):
            read(tmp_path / "gone.csv")


def test_a_row_with_too_many_fields_is_one_line_of_error(tmp_path: Path) -> None:
    path = boxes_file(tmp_path, "a,/m/1,0,1,0,1,0,0,0,0,9,9,9")
    with pytest.raises(UserError, match=r"boxes\.csv: not a readable CSV file") as caught:
        collect(scan_boxes(path), path)
    assert "\n" not in str(caught.value)


def test_unknown_flags_are_false_and_words_are_null_coordinates(tmp_path: Path) -> None:
    path = boxes_file(tmp_path, "a,/m/1,0.1,zero,0,1,-1,1,0,", "b,/m/1,nan,1,0,1,1,1,1,1")
    table = collect(scan_boxes(path), path)
    assert table["XMax"].to_list() == [None, 1.0]
    assert table.select("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction").row(0) == (False, True, False, False)


def test_boxes_are_numbered_within_their_image_in_file_order() -> None:
    frame = pl.DataFrame({"ImageID": ["a", "a", "b", "b", "b"]})
    assert number_boxes(frame)["number"].to_list() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_batches_hold_complete_images_wherever_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(openimages, "_BATCH_ROWS", batch_rows)
    images = [name for name, count in {"a": 1, "b": 4, "c": 2, "d": 1}.items() for _ in range(count)]
    path = boxes_file(tmp_path, *(f"{name},/m/1,0,1,0,1,0,0,0,0" for name in images))
    batches = list(stream_images(scan_boxes(path), path))
    assert [name for batch in batches for name in batch["ImageID"]] == images
    assert sum(batch["ImageID"].n_unique() for batch in batches) == 4


def test_an_unsorted_file_is_refused_not_misnumbered(tmp_path: Path) -> None:
    path = boxes_file(tmp_path, *(f"{name},/m/1,0,1,0,1,0,0,0,0" for name in "aba"))
    with pytest.raises(UnsortedError) as refused:
        list(stream_images(scan_boxes(path), path))
    assert refused.value.path == path


def test_class_descriptions_with_and_without_header(tmp_path: Path) -> None:
    body = '/m/1,Cat\n/m/2,"Salt, and pepper"\n'
    for name, text in (("with.csv", "LabelName,DisplayName\n" + body), ("without.csv", body)):
        (tmp_path / name).write_text(text)
        assert read_classes(tmp_path / name).rows() == [("/m/1", "Cat"), ("/m/2", "Salt, and pepper")]


def test_a_class_file_of_one_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("/m/1\n/m/2\n")
    with pytest.raises(UserError, match=r"classes\.csv: class descriptions are rows of LabelName,DisplayName"):
        read_classes(tmp_path / "classes.csv")


CLASSES = pl.DataFrame({"LabelName": ["/m/1", "/m/2", "/m/3"], "DisplayName": ["Cat", "Cattle", "Dog"]})


def test_classes_are_found_by_name_ignoring_case() -> None:
    assert find_labels(CLASSES, ["dog", "Cat"], "acquire.classes") == ["/m/3", "/m/1"]


ANIMALS = {"LabelName": "/m/0", "Subcategory": [{"LabelName": "/m/1"}, {"LabelName": "/m/3"}]}
TREE = {"LabelName": "/m/all", "Subcategory": [ANIMALS | {"Part": [{"LabelName": "/m/9"}]}, {"LabelName": "/m/7"}]}


def test_a_class_includes_its_kinds_but_not_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "hierarchy.json"
    path.write_text(json.dumps(TREE))
    hierarchy = read_hierarchy(path)
    assert hierarchy == {"/m/all": {"/m/0", "/m/1", "/m/3", "/m/7"}, "/m/0": {"/m/1", "/m/3"}}
    classes = pl.concat([CLASSES, pl.DataFrame({"LabelName": ["/m/0"], "DisplayName": ["Animal"]})])
    assert find_labels(classes, ["animal"], "filter.classes", hierarchy) == ["/m/0", "/m/1", "/m/3"]
    assert find_labels(classes, ["Dog"], "filter.classes", hierarchy) == ["/m/3"]
    assert read_hierarchy(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"LabelName": "/m/1", "Subcategory": [{}]}', '{"LabelName": "/m/1", "Subcategory": 5}']
)
def test_a_damaged_hierarchy_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(UserError, match=r"h\.json: not a"):
        read_hierarchy(tmp_path / "h.json")


def test_an_unknown_class_comes_with_suggestions() -> None:
    with pytest.raises(UserError, match=r"acquire\.classes: no class is called 'Catt'; close to it: Cat.*"):
        find_labels(CLASSES, ["Catt"], "acquire.classes")
    with pytest.raises(UserError, match=r"there are 3, for example Cat, Cattle, Dog"):
        find_labels(CLASSES, ["Zeppelin"], "acquire.classes")


def test_selection_by_class_and_limit(tmp_path: Path) -> None:
    rows = [f"{i:02d},/m/{1 + i % 2},0,1,0,1,0,0,0,0" for i in range(40)] * 2
    path = boxes_file(tmp_path, *rows)
    assert select_images(path, [], None, 0).to_list() == [f"{i:02d}" for i in range(40)]
    assert select_images(path, ["/m/1"], None, 0).to_list() == [f"{i:02d}" for i in range(0, 40, 2)]
    ten, twenty = (select_images(path, [], limit, 0).to_list() for limit in (10, 20))
    assert len(ten) == 10
    assert ten == sorted(ten)
    assert set(ten) < set(twenty)
    assert ten != select_images(path, [], 10, seed=1).to_list()


def test_a_rank_depends_only_on_name_and_seed() -> None:
    alone, among = draw_ranks(["a"], 0), draw_ranks(["long_name", "a", "ä"], 0)
    assert alone[0] == among[1]
    assert len({int(rank) for seed in range(3) for rank in draw_ranks(["a", "b", "ab", "ba"], seed)}) == 12


def test_ranks_are_spread_evenly() -> None:
    shares = draw_ranks([f"{n:016x}_{n % 7:03d}" for n in range(20_000)], 3) / 2.0**64
    counts = np.histogram(shares, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi squared with 19 degrees of freedom, p = 0.001
