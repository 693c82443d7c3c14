"""A bench is found in the folder that its user has, and its files are listed without being opened."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.evaluation.benches.bench_folder import list_bench, read_bench
from tests.support.benches import write_bench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bench(tmp_path / "test_bench", (7, 12))


@pytest.mark.parametrize("path", ["a", "a/b", "a/b/c"])
def test_a_download_nested_up_to_three_levels_is_found(folder: Path, tmp_path: Path, path: str) -> None:
    nested = tmp_path / "download" / path
    nested.parent.mkdir(parents=True)
    folder.rename(nested)
    (tmp_path / "download" / "__MACOSX" / "GT_3500").mkdir(parents=True)
    assert read_bench(tmp_path / "download").folder == nested
    assert read_bench(nested / "GT_3500").folder == nested


def test_ids_come_from_the_files_where_the_list_is_missing_and_nothing_is_written(folder: Path) -> None:
    (folder / "id_list.npy").unlink()
    (folder / "Mask_bbox_3500" / "000000000007_mask.png").unlink()
    before = sorted(folder.rglob("*"))
    listing = list_bench(folder)
    assert (listing.bench.ids, listing.ids_from_files) == ((7, 12), True)
    assert sorted(folder.rglob("*")) == before


def test_the_list_may_lie_beside_the_folder_of_an_archive(folder: Path, tmp_path: Path) -> None:
    (folder / "id_list.npy").rename(tmp_path / "id_list.npy")
    np.save(tmp_path / "id_list.npy", np.array([12]))
    listing = list_bench(tmp_path)
    assert (listing.bench.ids, listing.ids_from_files) == ((12,), False)
    assert {path.name[:12] for path in listing.other_files} == {"000000000007"}


def test_names_of_another_form_are_found_and_files_of_no_case_are_listed(folder: Path) -> None:
    for number, name in enumerate(("GT_3500/7_GT.png", "Mask_bbox_3500/7.PNG", "Ref_3500/000000000007_ref.jpg")):
        found = next((folder / name).parent.glob("*7_*"))
        found.rename(folder / name)
        (folder / name).with_name(f"note{number}.txt").touch()
    (folder / "GT_3500" / ".DS_Store").touch()
    listing = list_bench(folder)
    assert [path.name for path in listing.bench.files(7)] == ["7_GT.png", "7.PNG", "000000000007_ref.jpg"]
    assert listing.bench.files(12).source.name == "000000000012_GT.png"
    assert [path.name for path in listing.other_files] == ["note0.txt", "note1.txt", "note2.txt"]


def test_the_name_of_cocoee_is_preferred(folder: Path) -> None:
    (folder / "GT_3500" / "7_GT.png").write_bytes(b"a copy")
    listing = list_bench(folder)
    assert listing.bench.files(7).source.name == "000000000007_GT.png"
    assert [path.name for path in listing.other_files] == ["7_GT.png"]


def test_a_folder_without_a_bench_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such folder; see evaluate\.bench"):
        read_bench(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no folder GT_3500, Mask_bbox_3500, Ref_3500 here, nor up to 3 levels below"):
        read_bench(tmp_path)
    (tmp_path / "test_bench.zip").touch()
    with pytest.raises(UserError, match=r"here; unpack test_bench\.zip first"):
        read_bench(tmp_path)


def test_a_bench_in_two_places_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "part2").mkdir()
    (folder / "Ref_3500").rename(tmp_path / "part2" / "Ref_3500")
    with pytest.raises(UserError, match=r"are in .*part2 and in .*test_bench; name one of them, or move GT_3500, "):
        read_bench(tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([7, 7]), "id 7 is listed 2 times"),
        (np.array([7.5]), "must be a list of integers, but is float64"),
        (np.array([], np.int64), "lists no cases; see bench.num_cases"),
        (np.array([[7]]), r"shape \(1, 1\)"),
    ],
)
def test_an_array_that_is_not_a_list_of_unique_ids_is_refused(
    folder: Path, ids: NDArray[np.generic], message: str
) -> None:
    np.save(folder / "id_list.npy", ids)
    with pytest.raises(UserError, match=rf"id_list\.npy: .*{message}"):
        read_bench(folder)


def test_a_list_that_is_not_a_numpy_file_is_refused(folder: Path) -> None:
    (folder / "id_list.npy").write_bytes(b"7, 8")
    with pytest.raises(UserError, match=r"id_list\.npy: not an array of ids"):
        read_bench(folder)
