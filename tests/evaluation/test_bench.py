from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.evaluation.bench import (
    Case,
    Origin,
    exemplar_path,
    mask_path,
    read_bench,
    source_path,
    write_case,
    write_index,
)


def case(case_id: int, side: int = 16) -> Case:
    rng = np.random.default_rng(case_id)
    mask = np.zeros((side, side), np.uint8)
    mask[2:9, 3:11] = 1
    source = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Case(case_id, source, mask, rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for case_id in (7, 3_000_000_000):
        write_case(tmp_path, case(case_id))
    np.save(tmp_path / "id_list.npy", np.array([7, 3_000_000_000], np.int64))
    return tmp_path


def test_the_files_are_named_as_in_cocoee(folder: Path) -> None:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*0000000007*"))
    assert names == [
        "GT_3500/000000000007_GT.png",
        "Mask_bbox_3500/000000000007_mask.png",
        "Ref_3500/000000000007_ref.png",
    ]
    assert set(np.unique(np.asarray(PillowImage.open(folder / names[1])))) == {0, 255}


def test_a_case_comes_back_as_it_was_written(folder: Path) -> None:
    read, written = read_bench(folder).case(3_000_000_000), case(3_000_000_000)
    for name in ("source", "mask", "exemplar"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.box == (3, 2, 11, 9)


def test_a_bench_without_origins_knows_no_truth(folder: Path) -> None:
    bench = read_bench(folder)
    assert (len(bench), bench.origins, bench.exemplar_truth, bench.num_reused_boxes) == (2, None, None, 0)


def test_origins_come_back_and_carry_the_truth(folder: Path) -> None:
    origins = [
        Origin(7, "a", "a_000", "b_000", "Star", "star", "red", "plain", "red"),
        Origin(3_000_000_000, "a", "a_000", "c_000", "Moon", "moon", "blue", "dotted", "pink"),
    ]
    write_index(folder, origins)
    bench = read_bench(folder)
    assert bench.origins == tuple(origins)
    assert [t.caption for t in bench.exemplar_truth or ()] == ["a plain red star", "a dotted blue moon with pink"]
    assert bench.source_truth is None
    assert bench.num_reused_boxes == 1
    assert bench.head(1).ids == (7,)


def test_origins_in_another_order_are_refused(folder: Path) -> None:
    write_index(folder, [Origin(i, "a", "a_0", "b_0", "Star") for i in (7, 3_000_000_000)])
    np.save(folder / "id_list.npy", np.array([3_000_000_000, 7]))
    with pytest.raises(ValueError, match=r"cases\.csv: does not list the same ids"):
        read_bench(folder)


@pytest.mark.parametrize("path_of", [source_path, mask_path, exemplar_path])
def test_a_missing_file_is_named(folder: Path, path_of: object) -> None:
    path = path_of(folder, 7)  # type: ignore[operator]
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name}: missing \(ids without this file: 7\)"):
        read_bench(folder)


def test_a_mask_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    PillowImage.fromarray(np.full((8, 12), 255, np.uint8)).save(mask_path(folder, 7))
    with pytest.raises(ValueError, match=r"07_mask\.png: the mask of id 7 is 12 x 8 px, its source 16 x 16 px"):
        read_bench(folder)


def test_an_empty_mask_is_named(folder: Path) -> None:
    PillowImage.fromarray(np.zeros((16, 16), np.uint8)).save(mask_path(folder, 7))
    with pytest.raises(ValueError, match=r"000000000007_mask\.png: the mask of id 7 is empty"):
        read_bench(folder)


def test_a_mask_that_is_no_picture_is_named(folder: Path) -> None:
    mask_path(folder, 7).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"000000000007_mask\.png: .*cannot be decoded"):
        read_bench(folder)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([7, 7]), "id 7 is listed 2 times"),
        (np.array([7.5]), "should be a list of whole numbers, is float64"),
        (np.array([], np.int64), r"shape \(0,\)"),
        (np.array([[7]]), r"shape \(1, 1\)"),
    ],
)
def test_a_list_that_is_not_one_of_ids_is_refused(folder: Path, ids: np.ndarray, message: str) -> None:
    np.save(folder / "id_list.npy", ids)
    with pytest.raises(ValueError, match=rf"id_list\.npy: .*{message}"):
        read_bench(folder)


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"id_list\.npy: missing"):
        read_bench(tmp_path)
