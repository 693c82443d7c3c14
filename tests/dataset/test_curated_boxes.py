"""Reading the curated boxes: order, split, and an error for each state that the user can correct."""

from pathlib import Path

import polars as pl
import pytest

from pbe.dataset.curated_boxes import CuratedBox, read_curated_boxes, read_curated_frame
from pbe.dataset.image_shards import ImageRef
from pbe.errors import UserError
from tests.support.tiny_data import write_boxes

PLACE = ImageRef("train-00000.tar", 512, 9)


def test_boxes_of_a_split_come_sorted_by_id(tmp_path: Path) -> None:
    rows = [("b_000", "b", "train", (1, 2, 3, 4), PLACE), ("a_000", "a", "train", (0, 0, 5, 5), PLACE)]
    write_boxes(tmp_path, [*rows, ("v_000", "v", "validation", (0, 0, 5, 5), PLACE)])
    assert read_curated_boxes(tmp_path, "train") == [
        CuratedBox("a_000", "a", "train", (0, 0, 5, 5), PLACE),
        CuratedBox("b_000", "b", "train", (1, 2, 3, 4), PLACE),
    ]


def test_a_box_has_its_objects_mask_if_the_data_have_masks(tmp_path: Path) -> None:
    write_boxes(tmp_path, [(name, "a", "train", (0, 0, 5, 5), PLACE) for name in ("a_000", "a_001")])
    frame = pl.read_parquet(tmp_path / "boxes.parquet")
    frame.with_columns(object_mask=pl.Series([b"png", None])).write_parquet(tmp_path / "boxes.parquet")
    assert [box.object_mask for box in read_curated_boxes(tmp_path, "train")] == [b"png", None]


def test_a_split_without_boxes_is_a_user_error(tmp_path: Path) -> None:
    write_boxes(tmp_path, [("a_000", "a", "train", (0, 0, 5, 5), PLACE)])
    with pytest.raises(UserError, match=r"boxes\.parquet: no box of the split 'validation' is left"):
        read_curated_boxes(tmp_path, "validation")


def test_a_missing_file_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"boxes\.parquet: no such file; run the curate stage first"):
        read_curated_frame(tmp_path, "train")


def test_a_damaged_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "boxes.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"boxes\.parquet: not a readable parquet file"):
        read_curated_frame(tmp_path, "train")
