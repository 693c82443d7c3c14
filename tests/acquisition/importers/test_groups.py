"""Groups of images: read from a CSV file, recorded with each image, and never divided between the splits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.acquisition.download import AcquireReport, acquire
from pbe.acquisition.importers.annotations import ImportedBox, ImportedImage
from pbe.acquisition.importers.split_drawing import draw_splits
from pbe.errors import UserError
from tests.support import parameters
from tests.support.own_data import WRITERS

BOXES = [ImportedBox("Cat", (0.1, 0.1, 0.5, 0.5))]
NAMES = [f"clip{n // 4}/{n:02d}.png" for n in range(24)]


def draw(groups: Sequence[str | None], named: Sequence[str | None], frac: float = 0.3, seed: int = 0) -> list[str]:
    ids = [str(n) for n in range(len(groups))]
    images = [ImportedImage(Path(i), split, BOXES) for i, split in zip(ids, named, strict=True)]
    return draw_splits(images, ids, groups, frac, seed)


@settings(deadline=None)
@given(
    groups=st.lists(st.sampled_from([None, "0", "1", "2", "3", "4"]), min_size=2, max_size=40),
    frac=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_group_is_drawn_into_two_splits(groups: list[str | None], frac: float, seed: int) -> None:
    groups = [*groups, "5", "6"]
    splits = draw(groups, [None] * len(groups), frac, seed)
    assert set(splits) == {"train", "validation"}
    for group in set(groups) - {None}:
        assert len({split for split, of in zip(splits, groups, strict=True) if of == group}) == 1
    assert splits == draw(groups, [None] * len(groups), frac, seed)


@settings(deadline=None)
@given(
    groups=st.lists(st.sampled_from(["0", "1", "2"]), min_size=4, max_size=20),
    named=st.lists(st.booleans(), min_size=20, max_size=20),
    seed=st.integers(0, 99),
)
def test_images_follow_those_of_their_group_whose_split_is_named(
    groups: list[str], named: list[bool], seed: int
) -> None:
    of_group = {"0": "train", "1": "validation", "2": None}
    groups = [*groups, "0", "1"]
    splits = [of_group[g] if n else None for g, n in zip(groups, named, strict=False)][: len(groups) - 2]
    drawn = draw(groups, [*splits, "train", "validation"], seed=seed)
    assert all(split == of_group[g] for split, g in zip(drawn, groups, strict=True) if g != "2")
    assert len({split for split, g in zip(drawn, groups, strict=True) if g == "2"}) <= 1


def test_a_group_keeps_its_split_when_others_are_added() -> None:
    groups = [str(n // 3) for n in range(60)]
    assert draw(groups[:30], [None] * 30) == draw(groups, [None] * 60)[:30]


def write_frames(root: Path, rows: Sequence[str], header: str = "image,scene,label") -> Path:
    """Write six clips of four frames without named splits, and scenes.csv with `rows`."""
    lines = ["image,label,x0,y0,x1,y1"]
    for n, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.full((40, 40, 3), 10 * n, np.uint8))
        lines.append(f"{name},Cat,5,5,35,35")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    (root / "scenes.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def acquire_frames(root: Path, **changes: Any) -> tuple[pl.DataFrame, AcquireReport]:
    values = {"source": "csv", "root": str(root), "group_file": "scenes.csv", "group_column": "scene"} | changes
    out = root.parent / "raw"
    report = acquire(parameters.acquire(**values, workers=2), 0, out)
    return pl.read_parquet(out / "manifest.parquet").select("image_id", "split", "group"), report


def test_the_manifest_has_each_images_group_and_splits_do_not_divide_it(tmp_path: Path) -> None:
    rows = [f"{n:02d},{n // 4},Cat" for n in range(24)]
    manifest, report = acquire_frames(write_frames(tmp_path / "data", rows), validation_frac=0.4)
    assert manifest.sort("image_id")["group"].to_list() == [str(n // 4) for n in range(24)]
    assert manifest["split"].n_unique() == 2
    assert manifest.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 6
    assert not report.adjusted
    assert not report.skipped


def test_rows_name_images_as_people_write_them_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    rows = ["clip0/00.png;a", r"clip0\01.PNG;a", "/home/me/clip0/02.png;a", "04;b", "unknown.png;c", "05;"]
    manifest, report = acquire_frames(write_frames(tmp_path / "data", rows, "Image;Scene"))
    groups = dict(manifest.select("image_id", "group").iter_rows())
    assert {name: group for name, group in groups.items() if group} == {"00": "a", "01": "a", "02": "a", "04": "b"}
    assert report.adjusted == {"images_without_group": 20}
    assert report.skipped == {"group_row_without_image": 1}


def test_an_acquired_folder_keeps_its_groups(tmp_path: Path) -> None:
    rows = [f"{n:02d},{n // 4},Cat" for n in range(24)]
    manifest, _ = acquire_frames(write_frames(tmp_path / "data", rows))
    acquire(parameters.acquire(source="folder", root=str(tmp_path / "raw"), workers=2), 0, tmp_path / "again")
    assert pl.read_parquet(tmp_path / "again" / "manifest.parquet").select(manifest.columns).equals(manifest)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["00,1,Cat", "01,2,Cat", "00.png,2,Cat"], "image,scene,label",
         r"scenes\.csv: line 4: '00\.png' has the scene '2' here and '1' in line 2; give an image one group"),
        (["00,Cat"], "image,label", r"scenes\.csv: column scene is missing; columns found: image, label"),
        (["a,1,Cat", "b,2,Cat"], "image,scene,label", r"scenes\.csv: none of its 2 images is one of the data's"),
        ([",1,Cat"], "image,scene,label", r"scenes\.csv: line 2: the image is empty"),
        ([f"{n:02d},1,Cat" for n in range(24)], "image,scene,label", "all 24 images are in the group '1'"),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_the_line(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        acquire_frames(write_frames(tmp_path / "data", rows, header))


def test_a_group_file_that_does_not_exist_or_is_not_read_is_an_error(tmp_path: Path) -> None:
    root = write_frames(tmp_path / "data", [])
    with pytest.raises(UserError, match=r"acquire\.group_file: .*clips\.csv: no such file"):
        acquire_frames(root, group_file="clips.csv")
    with pytest.raises(UserError, match=r"acquire\.group_file: not read with acquire\.source: folder"):
        acquire_frames(root, source="folder")


def test_a_group_in_both_splits_is_an_error_that_names_an_image_of_each(tmp_path: Path) -> None:
    root = tmp_path / "data"
    WRITERS["csv"](root)
    (root / "scenes.csv").write_text("image,scene\na,1\nb,2\nc,2\n")
    with pytest.raises(UserError, match=r"group '2' is in both splits \(train: image b, validation: image c\)"):
        acquire_frames(root)


def test_groups_of_openimages_layout_are_read_and_checked(tmp_path: Path) -> None:
    root = tmp_path / "data"
    WRITERS["folder"](root)
    (root / "annotations" / "train-image-groups.csv").write_text("ImageID,Group\na,1\nb,1\n")
    manifest, _ = acquire_frames(root, source="folder", group_file=None)
    assert manifest.rows() == [("a", "train", "1"), ("b", "train", "1"), ("c", "validation", None)]
    (root / "annotations" / "train-image-groups.csv").write_text("ImageID,Group\na,1\na,2\n")
    with pytest.raises(UserError, match=r"train-image-groups\.csv: image a has two groups"):
        acquire_frames(root, source="folder", group_file=None)
