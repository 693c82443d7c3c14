"""Attributions: one row for each image in use."""

from pathlib import Path

import polars as pl
import pytest

from pbe.dataset import openimages
from pbe.dataset.attributions import write_attributions
from pbe.errors import UserError

COLUMNS = ",".join(openimages.IMAGE_COLUMNS)


def test_credits_come_from_the_list_and_are_null_for_other_images(tmp_path: Path) -> None:
    path = tmp_path / "train-images.csv"
    path.write_text(f'{COLUMNS}\na,train,u,l,CC BY,p,"Jo, Ann",T,1,m,,0\nz,train,u,l,CC0,p,Other,T,1,m,,0\n')
    ids = pl.DataFrame({"image_id": ["b", "a"]})
    credits = openimages.read_credits(path, ids).sort("image_id")
    assert credits["author"].to_list() == ["Jo, Ann", None]
    assert credits["license"].to_list() == ["CC BY", None]
    absent = openimages.read_credits(tmp_path / "none.csv", ids)
    assert absent.select(*openimages.CREDITS).null_count().sum_horizontal().item() == 10


def test_a_list_needs_image_ids_and_no_other_column(tmp_path: Path) -> None:
    path = tmp_path / "train-images.csv"
    path.write_text("Image,Author\na,b\n")
    with pytest.raises(UserError, match=r"train-images\.csv: column ImageID is missing; columns found: Image, Author"):
        openimages.scan_credits(path)
    path.write_text("")
    with pytest.raises(UserError, match=r"train-images\.csv: the file is empty"):
        openimages.scan_credits(path)
    path.write_text("ImageID,Author\na,second\na,first\n")
    credits = openimages.read_credits(path, pl.DataFrame({"image_id": ["a"]}))
    assert credits.select("author", "license").rows() == [("first", None)]


def write_project(folder: Path) -> tuple[Path, Path]:
    raw, curated = folder / "raw", folder / "curated"
    raw.mkdir()
    curated.mkdir()
    ids = {"split": ["train", "train", "validation"], "image_id": ["a", "b", "a"]}
    credits = {name: [f"{name} 1", None, f"{name} 3"] for name in openimages.CREDITS}
    pl.DataFrame(ids | credits).write_parquet(raw / "manifest.parquet")
    boxes = {"split": ["train", "train", "validation"], "image_id": ["a", "a", "a"], "box_id": ["a0", "a1", "a0"]}
    pl.DataFrame(boxes).write_parquet(curated / "boxes.parquet")
    return raw, curated


def test_every_image_in_use_has_one_row(tmp_path: Path) -> None:
    raw, curated = write_project(tmp_path)
    assert write_attributions(raw, curated, tmp_path / "credits.csv") == (2, 0)
    written = pl.read_csv(tmp_path / "credits.csv")
    assert written.columns == ["split", "image_id", *openimages.CREDITS]
    assert written["author"].to_list() == ["author 1", "author 3"]


def test_a_missing_or_old_file_is_named(tmp_path: Path) -> None:
    raw, curated = write_project(tmp_path)
    with pytest.raises(UserError, match=r"credits\.txt: .* ends in \.csv"):
        write_attributions(raw, curated, tmp_path / "credits.txt")
    pl.read_parquet(raw / "manifest.parquet").drop("license").write_parquet(raw / "manifest.parquet")
    with pytest.raises(UserError, match=r"manifest\.parquet: column license is missing; run the acquire stage again"):
        write_attributions(raw, curated, tmp_path / "credits.csv")
    (curated / "boxes.parquet").unlink()
    with pytest.raises(UserError, match=r"boxes\.parquet: no such file; run the curate stage first"):
        write_attributions(raw, curated, tmp_path / "credits.csv")
