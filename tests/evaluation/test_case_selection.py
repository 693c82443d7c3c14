import hashlib
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pbe.evaluation.bench import Bench
from pbe.evaluation.case_selection import make_bench
from pbe.settings import Evaluate
from tests.support import parameters


def tree(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def make(demo: Path, out: Path, settings: Evaluate, seed: int = 0) -> Bench:
    return make_bench(demo / "raw", demo / "curated", out, settings, image_px=32, pad_frac=0.06, seed=seed)


def with_boxes(demo: Path, root: Path, boxes: pl.DataFrame) -> Path:
    """The same world with other curated boxes."""
    shutil.copytree(demo / "raw", root / "raw")
    (root / "curated").mkdir()
    boxes.write_parquet(root / "curated" / "boxes.parquet")
    return root


def test_exemplars_never_come_from_the_image_they_go_into(bench: Bench) -> None:
    assert bench.origins is not None
    assert len(bench) == 12
    for o in bench.origins:
        assert o.source_image_id.startswith("validation")
        assert o.exemplar_box_id.startswith("validation")
        assert o.exemplar_box_id.rsplit("_", 1)[0] != o.source_image_id
    assert len({(o.source_box_id, o.exemplar_box_id) for o in bench.origins}) == 12


def test_boxes_cover_what_the_settings_admit(bench: Bench, settings: Evaluate) -> None:
    for case_id in bench.ids:
        case = bench.case(case_id)
        x0, y0, x1, y1 = case.box
        assert case.source.shape == (32, 32, 3)
        assert case.mask.sum() == (x1 - x0) * (y1 - y0)
        assert settings.min_area_frac * 0.9 <= case.mask.mean() <= settings.max_area_frac * 1.2  # rounding to pixels


def test_flagged_and_small_boxes_are_left_out(bench: Bench, demo: Path) -> None:
    assert bench.origins is not None
    boxes = {r["box_id"]: r for r in pl.read_parquet(demo / "curated" / "boxes.parquet").iter_rows(named=True)}
    for o in bench.origins:
        source, exemplar = boxes[o.source_box_id], boxes[o.exemplar_box_id]
        assert not any(box[flag] for box in (source, exemplar) for flag in ("is_truncated", "is_occluded"))
        assert min(exemplar["x1"] - exemplar["x0"], exemplar["y1"] - exemplar["y0"]) >= 14


def test_the_truth_is_that_of_the_boxes(bench: Bench, demo: Path) -> None:
    lines = (demo / "raw" / "annotations" / "world-attributes.csv").read_text().splitlines()[1:]
    truth = {line.split(",")[0]: tuple(line.split(",")[1:]) for line in lines}
    assert bench.origins is not None
    for o in bench.origins:
        assert (o.Shape, o.Colour, o.Pattern, o.SecondColour) == truth[o.exemplar_box_id]
        assert (o.SourceShape, o.SourceColour, o.SourcePattern, o.SourceSecondColour) == truth[o.source_box_id]


def test_the_same_arguments_write_the_same_bytes(bench: Bench, demo: Path, settings: Evaluate, tmp_path: Path) -> None:
    assert tree(make(demo, tmp_path / "again", settings).folder) == tree(bench.folder)
    assert tree(make(demo, tmp_path / "other", settings, seed=1).folder) != tree(bench.folder)


def test_boxes_are_used_again_with_other_exemplars(demo: Path, tmp_path: Path) -> None:
    bench = make(demo, tmp_path / "bench", parameters.evaluate(num_cases=40))
    assert len(bench) == 40
    assert bench.num_reused_boxes > 0
    assert len({(o.source_box_id, o.exemplar_box_id) for o in bench.origins or ()}) == 40


def test_there_are_no_more_cases_than_pairs(demo: Path, tmp_path: Path) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("split") == "validation")
    clear = boxes.filter(~pl.col("is_truncated") & ~pl.col("is_occluded")).unique("image_id").sort("box_id")[:3]
    root = with_boxes(demo, tmp_path, clear)
    assert (
        len(make(root, tmp_path / "bench", parameters.evaluate(num_cases=50, min_area_frac=0.0, max_area_frac=1.0)))
        <= 6
    )


def test_photographs_without_attributes_make_a_bench_without_truth(demo: Path, tmp_path: Path) -> None:
    root = with_boxes(demo, tmp_path, pl.read_parquet(demo / "curated" / "boxes.parquet"))
    (root / "raw" / "annotations" / "world-attributes.csv").unlink()
    bench = make(root, tmp_path / "bench", parameters.evaluate(num_cases=3))
    assert bench.origins is not None
    assert bench.exemplar_truth is None


def test_no_validation_boxes_is_said(demo: Path, tmp_path: Path) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("split") == "train")
    with pytest.raises(ValueError, match=r"boxes\.parquet: no boxes of validation images"):
        make(with_boxes(demo, tmp_path, boxes), tmp_path / "bench", parameters.evaluate())


def test_boxes_of_one_image_make_no_case(demo: Path, tmp_path: Path) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("image_id") == "validation1")
    with pytest.raises(ValueError, match="two images at least"):
        make(with_boxes(demo, tmp_path, boxes), tmp_path / "bench", parameters.evaluate())
    assert not (tmp_path / "bench").exists()


def test_a_folder_that_is_no_bench_is_not_written_over(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not written over"):
        make(demo, tmp_path / "bench", parameters.evaluate(num_cases=2))
    assert (tmp_path / "bench" / "thesis.txt").read_text() == "mine"


def test_a_bench_is_replaced_by_a_new_one(demo: Path, tmp_path: Path) -> None:
    make(demo, tmp_path / "bench", parameters.evaluate(num_cases=6))
    assert len(make(demo, tmp_path / "bench", parameters.evaluate(num_cases=2))) == 2
    assert len(list((tmp_path / "bench" / "GT_3500").iterdir())) == 2


def test_exemplars_are_no_larger_than_the_working_size(bench: Bench) -> None:
    assert max(max(bench.case(i).exemplar.shape[:2]) for i in bench.ids) <= 32
    assert any(len(set(bench.case(i).exemplar.shape[:2])) == 2 for i in bench.ids)  # their shape is kept
    assert np.unique([bench.case(i).exemplar.mean() for i in bench.ids]).size > 3
