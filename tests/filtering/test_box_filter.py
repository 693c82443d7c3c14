"""The file of boxes that the stage writes, its counts, and its errors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pbe.dataset.openimages import REQUIRED_COLUMNS
from pbe.errors import UserError
from pbe.filtering.box_filter import COLUMNS, filter_boxes
from tests.support import parameters

HEADER = ",".join(REQUIRED_COLUMNS)
GOOD = "0.1,0.5,0.1,0.9"
MANIFEST = pl.DataFrame(
    {
        "image_id": ["i", "j"],
        "width": [200, 100],
        "height": [100, 100],
        "shard": ["train-00000.tar"] * 2,
        "offset": [512, 512],
        "num_bytes": [1000, 1000],
        "outcome": ["ok", "ok"],
    }
)


def write_raw(folder: Path, train: Sequence[str], validation: Sequence[str]) -> Path:
    annotations = folder / "annotations"
    annotations.mkdir(parents=True)
    for split, rows in (("train", train), ("validation", validation)):
        (annotations / f"{split}-annotations-bbox.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (annotations / "class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n/m/1,Cat\n")
    manifest = pl.concat([MANIFEST.with_columns(split=pl.lit(split)) for split in ("train", "validation")])
    manifest.write_parquet(folder / "manifest.parquet")
    return folder


def test_the_file_has_the_promised_columns_and_the_counts_add_up(tmp_path: Path) -> None:
    train = [f"i,/m/1,{GOOD},-1,0,0,0"] * 4 + [f"j,/m/9,{GOOD},1,0,0,0", "j,/m/1,0.1,x,0,1,0,0,0,0"]
    raw = write_raw(tmp_path / "raw", train, [f"j,/m/1,{GOOD},0,0,0,0", f"k,/m/1,{GOOD},0,0,0,0"])
    report = filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)
    kept = pl.read_parquet(tmp_path / "boxes" / "boxes.parquet")
    assert kept.schema == pl.Schema(COLUMNS)
    assert kept["box_id"].is_sorted()
    assert report.rows == 8 == kept.height + sum(report.rejects.values())
    assert report.kept == {"train": 3, "validation": 1}
    assert report.images == {"train": 2, "validation": 1}
    assert {reason: count for reason, count in report.rejects.items() if count} == {
        "invalid_coordinates": 1,
        "image_not_acquired": 1,
        "over_image_cap": 2,
    }
    assert set(kept["label"]) == {"Cat", "/m/9"}  # a class without a description keeps its LabelName
    assert kept.filter(label="/m/9")["is_occluded"].to_list() == [True]
    assert not kept.filter(label="Cat")["is_occluded"].any()
    assert [path.name for path in (tmp_path / "boxes").iterdir()] == ["boxes.parquet"]


def test_a_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", [f"i,/m/1,{GOOD},0,0,0,0"] * 9, [f"j,/m/1,{GOOD},0,0,0,0"])
    for name in ("a", "b"):
        filter_boxes(raw, tmp_path / name, parameters.filtering(), seed=0)
    assert (tmp_path / "a/boxes.parquet").read_bytes() == (tmp_path / "b/boxes.parquet").read_bytes()


def test_an_unsorted_file_gives_the_bytes_of_the_sorted_one(tmp_path: Path) -> None:
    rows = [f"{image},/m/1,0.1,{x:.2f},0.1,0.9,0,0,0,0" for x in np.linspace(0.3, 0.7, 9) for image in "ji"]
    in_order = sorted(rows, key=lambda row: row[0])
    for name, train in (("mixed", rows), ("ordered", in_order)):
        raw = write_raw(tmp_path / f"raw-{name}", train, [f"j,/m/1,{GOOD},0,0,0,0"])
        assert filter_boxes(raw, tmp_path / name, parameters.filtering(), seed=0).rows == 19
    assert (tmp_path / "mixed/boxes.parquet").read_bytes() == (tmp_path / "ordered/boxes.parquet").read_bytes()


def test_a_split_without_boxes_is_an_error_with_the_reasons_and_no_file(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", [f"i,/m/1,{GOOD},0,0,0,0"], ["j,/m/1,0.1,0.2,0.1,0.2,0,0,0,0"])
    with pytest.raises(UserError, match=r"no validation box passes the filter; rejected of 2: 1 area_too_small"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)
    assert not list(tmp_path.rglob("boxes/*"))


def test_errors_in_files_and_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.parquet: no such file; run the acquire stage first"):
        filter_boxes(tmp_path, tmp_path / "boxes", parameters.filtering(), seed=0)
    raw = write_raw(tmp_path / "raw", [f"i,/m/1,{GOOD},0,0,0,0"], [f"j,/m/1,{GOOD},0,0,0,0"])
    with pytest.raises(UserError, match=r"filter\.classes: no class is called 'Cut'; close to it: Cat"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(classes=("Cut",)), seed=0)
    path = raw / "annotations" / "train-annotations-bbox.csv"
    path.write_text(path.read_text().replace("XMax", "X"))
    with pytest.raises(UserError, match=r"train-annotations-bbox\.csv: column XMax is missing"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", [f"i,/m/1,{GOOD},0,0,0,0"], [f"j,/m/1,{GOOD},0,0,0,0"])
    masks = raw / "annotations" / "train-object-masks.parquet"
    pl.DataFrame({"ImageID": ["i"], "number": [0], "object_mask": [b"PNG"]}).write_parquet(masks)
    with pytest.raises(UserError, match=r"train-object-masks\.parquet: an object mask of image i is not a PNG"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)
    masks.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"train-object-masks\.parquet: not a readable parquet file"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)
    (raw / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"manifest\.parquet: not a readable parquet file"):
        filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)


def test_a_bug_keeps_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("operands could not be broadcast together")

    raw = write_raw(tmp_path / "raw", [f"i,/m/1,{GOOD},0,0,0,0"] * 9, [f"j,/m/1,{GOOD},0,0,0,0"])
    for function in ("lexsort", "bincount"):
        with monkeypatch.context() as patch:
            patch.setattr(np, function, broken)
            with pytest.raises(ValueError, match="could not be broadcast") as caught:
                filter_boxes(raw, tmp_path / "boxes", parameters.filtering(), seed=0)
        assert type(caught.value) is ValueError
