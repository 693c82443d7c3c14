"""The files of a bench: COCOEE's names, and origins with their truth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Origin, write_index
from pbe.evaluation.benches.bench_folder import read_bench
from tests.support.benches import make_case, write_bench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bench(tmp_path, (7, 3_000_000_000))


def test_the_files_are_named_as_in_cocoee(folder: Path) -> None:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*0000000007*"))
    assert names == [
        "GT_3500/000000000007_GT.png",
        "Mask_bbox_3500/000000000007_mask.png",
        "Ref_3500/000000000007_ref.png",
    ]
    assert set(np.unique(np.asarray(PillowImage.open(folder / names[1])))) == {0, 255}


def test_a_written_case_is_read_unchanged(folder: Path) -> None:
    read, written = read_bench(folder).case(3_000_000_000), make_case(3_000_000_000)
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
    assert bench.only([3_000_000_000]).origins == (origins[1],)


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
