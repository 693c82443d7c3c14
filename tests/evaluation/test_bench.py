"""The files of a bench: COCOEE's names, and origins with their truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pbe.errors import UserError
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


def test_a_written_case_is_read_unchanged(folder: Path) -> None:
    read, written = read_bench(folder).case(3_000_000_000), case(3_000_000_000)
    for name in ("source", "mask", "exemplar"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.box == (3, 2, 11, 9)


def test_a_bench_without_cases_csv_has_no_truth(folder: Path) -> None:
    bench = read_bench(folder)
    assert (len(bench), bench.origins, bench.exemplar_truth, bench.num_reused_boxes) == (2, None, None, 0)


def test_written_origins_are_read_unchanged_with_their_truth(folder: Path) -> None:
    star, moon = {"shape": "star"}, {"shape": "moon", "second_colour": "pink"}
    origins = [
        Origin(7, "a", "a_000", "b_000", "Star", "a plain star", star, {}),
        Origin(3_000_000_000, "a", "a_000", "c_000", "Moon", "a moon with pink", moon, star),
    ]
    write_index(folder, origins)
    bench = read_bench(folder)
    header = (folder / "cases.csv").read_text().splitlines()[0]
    assert header.endswith("exemplar_shape,exemplar_second_colour,source_shape,source_second_colour")
    assert bench.origins == tuple(origins)
    assert bench.exemplar_truth == (star, moon)
    assert bench.source_truth is None  # that of the first case is unknown
    assert bench.num_reused_boxes == 1
    assert bench.head(1).ids == (7,)


@pytest.mark.parametrize("ids", [(3_000_000_000, 7), (7,), (7, 8)])
def test_origins_of_other_ids_are_refused(folder: Path, ids: tuple[int, ...]) -> None:
    write_index(folder, [Origin(i, "a", "a_0", "b_0", "Star") for i in ids])
    np.save(folder / "id_list.npy", np.array([7, 3_000_000_000]))
    with pytest.raises(UserError, match=r"cases\.csv: does not list the same ids"):
        read_bench(folder)


def test_an_origin_whose_id_is_not_a_number_is_refused(folder: Path) -> None:
    write_index(folder, [Origin(i, "a", "a_0", "b_0", "Star") for i in (7, 3_000_000_000)])
    text = (folder / "cases.csv").read_text()
    (folder / "cases.csv").write_text(text.replace("\n7,", "\nseven,"))
    with pytest.raises(UserError, match=r"cases\.csv: does not list the same ids"):
        read_bench(folder)


def test_a_missing_column_of_origins_is_named(folder: Path) -> None:
    (folder / "cases.csv").write_text("case_id\n7\n3000000000\n")
    with pytest.raises(UserError, match=r"cases\.csv: column exemplar_box_id is missing"):
        read_bench(folder)


@pytest.mark.parametrize("path_of", [source_path, mask_path, exemplar_path])
def test_a_missing_file_is_named(folder: Path, path_of: Callable[[Path, int], Path]) -> None:
    path = path_of(folder, 7)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name}: missing \(ids without this file: 7\)"):
        read_bench(folder)


def test_a_mask_of_another_size_is_named_with_both_sizes(folder: Path) -> None:
    PillowImage.fromarray(np.full((8, 12), 255, np.uint8)).save(mask_path(folder, 7))
    with pytest.raises(UserError, match=r"07_mask\.png: the mask of id 7 is 12 x 8 px, its source 16 x 16 px"):
        read_bench(folder)


def test_an_empty_mask_is_named(folder: Path) -> None:
    PillowImage.fromarray(np.zeros((16, 16), np.uint8)).save(mask_path(folder, 7))
    with pytest.raises(UserError, match=r"000000000007_mask\.png: the mask of id 7 is empty"):
        read_bench(folder)


def test_a_mask_that_is_not_an_image_is_named(folder: Path) -> None:
    mask_path(folder, 7).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"000000000007_mask\.png: not an image"):
        read_bench(folder)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([7, 7]), "id 7 is listed 2 times"),
        (np.array([7.5]), "must be a list of integers, but is float64"),
        (np.array([], np.int64), r"shape \(0,\)"),
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


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"id_list\.npy: missing"):
        read_bench(tmp_path)
