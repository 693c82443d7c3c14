"""Cases drawn from curated validation boxes: their rules, and the same bytes each time."""

import hashlib
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbe.dataset.image_shards import ImageRef
from pbe.demo.accuracy import read_truth
from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.benches.case_selection import CaseRules, _BoxRow, _plan_cases, make_bench


def tree(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def make(demo: Path, out: Path, rules: CaseRules, seed: int = 0) -> Bench:
    return make_bench(demo / "raw", demo / "curated", out, rules, seed=seed, truth=read_truth(demo / "raw"))


def with_boxes(demo: Path, root: Path, boxes: pl.DataFrame) -> Path:
    """Copy the world, with the given curated boxes."""
    shutil.copytree(demo / "raw", root / "raw")
    (root / "curated").mkdir()
    boxes.write_parquet(root / "curated" / "boxes.parquet")
    return root


def test_exemplars_never_come_from_the_image_they_are_painted_into(bench: Bench) -> None:
    assert bench.origins is not None
    assert len(bench) == 12
    for o in bench.origins:
        assert o.source_image_id.startswith("validation")
        assert o.exemplar_box_id.startswith("validation")
        assert o.exemplar_box_id.rsplit("_", 1)[0] != o.source_image_id
    assert len({(o.source_box_id, o.exemplar_box_id) for o in bench.origins}) == 12


def test_boxes_cover_an_allowed_share_of_the_source(bench: Bench, rules: CaseRules) -> None:
    for case_id in bench.ids:
        case = bench.case(case_id)
        x0, y0, x1, y1 = case.box
        assert case.source.shape == (32, 32, 3)
        assert case.mask.sum() == (x1 - x0) * (y1 - y0)
        assert rules.min_area_frac * 0.9 <= case.mask.mean() <= rules.max_area_frac * 1.2  # rounding to pixels


def test_flagged_and_small_boxes_are_left_out(bench: Bench, demo: Path) -> None:
    assert bench.origins is not None
    boxes = {r["box_id"]: r for r in pl.read_parquet(demo / "curated" / "boxes.parquet").iter_rows(named=True)}
    for o in bench.origins:
        source, exemplar = boxes[o.source_box_id], boxes[o.exemplar_box_id]
        assert not any(box[flag] for box in (source, exemplar) for flag in ("is_truncated", "is_occluded"))
        assert min(exemplar["x1"] - exemplar["x0"], exemplar["y1"] - exemplar["y0"]) >= 14


def test_cases_have_the_truth_of_their_boxes(bench: Bench, demo: Path) -> None:
    truth = read_truth(demo / "raw")
    assert bench.origins is not None
    for o in bench.origins:
        exemplar = truth[o.exemplar_box_id]
        assert (o.exemplar_truth, o.exemplar_caption) == (exemplar.values, exemplar.caption)
        assert o.source_truth == truth[o.source_box_id].values


def test_the_same_arguments_write_the_same_bytes(bench: Bench, demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    assert tree(make(demo, tmp_path / "again", rules).folder) == tree(bench.folder)
    assert tree(make(demo, tmp_path / "other", rules, seed=1).folder) != tree(bench.folder)


def test_boxes_are_used_again_with_other_exemplars(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    bench = make(demo, tmp_path / "bench", replace(rules, num_cases=40))
    assert len(bench) == 40
    assert bench.num_reused_boxes > 0
    assert len({(o.source_box_id, o.exemplar_box_id) for o in bench.origins or ()}) == 40


def test_there_are_no_more_cases_than_pairs(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("split") == "validation")
    clear = boxes.filter(~pl.col("is_truncated") & ~pl.col("is_occluded")).unique("image_id").sort("box_id")[:3]
    root = with_boxes(demo, tmp_path, clear)
    rules = replace(rules, num_cases=50, min_area_frac=0.0, max_area_frac=1.0)
    assert len(make(root, tmp_path / "bench", rules)) <= 6


@settings(deadline=None)
@given(groups=st.lists(st.sampled_from([None, "1", "2", "3"]), min_size=1, max_size=8), seed=st.integers(0, 2**32 - 1))
def test_no_case_has_source_and_exemplar_of_one_group(groups: list[str | None], seed: int) -> None:
    image, box = ImageRef("x.tar", 0, 1), (4, 4, 24, 24)
    boxes = [  # two of each image
        _BoxRow(f"{n}_{k}", str(n), "Cat", box, 32, 32, True, image, None, group)
        for n, group in enumerate(groups)
        for k in range(2)
    ]
    rules = CaseRules(1000, 0.0, 1.0, 32, 0.1)
    pairs = {(p.source.box_id, p.exemplar.box_id) for p in _plan_cases(boxes, rules, np.random.default_rng(seed))}
    apart = {
        (source.box_id, exemplar.box_id)
        for source, exemplar in product(boxes, repeat=2)
        if source.image_id != exemplar.image_id and (source.group is None or source.group != exemplar.group)
    }
    assert pairs == apart  # every pair that is allowed, and no other


def test_the_groups_of_curated_boxes_keep_cases_apart(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet")
    images = boxes["image_id"].unique().sort().to_list()
    groups = {image_id: str(number % 3) for number, image_id in enumerate(images)}
    grouped = boxes.with_columns(group=pl.col("image_id").replace_strict(groups))
    bench = make(with_boxes(demo, tmp_path, grouped), tmp_path / "bench", replace(rules, num_cases=60))
    assert bench.origins
    for o in bench.origins:
        assert groups[o.source_image_id] != groups[o.exemplar_box_id.rsplit("_", 1)[0]]


def test_boxes_of_a_single_group_are_refused(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").with_columns(group=pl.lit("1"))
    with pytest.raises(UserError, match="an exemplar of another image and another group"):
        make(with_boxes(demo, tmp_path, boxes), tmp_path / "bench", rules)


def test_photographs_without_attributes_make_a_bench_without_truth(
    demo: Path, tmp_path: Path, rules: CaseRules
) -> None:
    root = with_boxes(demo, tmp_path, pl.read_parquet(demo / "curated" / "boxes.parquet"))
    (root / "raw" / "annotations" / "world-attributes.csv").unlink()
    bench = make(root, tmp_path / "bench", replace(rules, num_cases=3))
    assert bench.origins is not None
    assert bench.exemplar_truth is None
    assert all(o.exemplar_caption == o.exemplar_label.lower() for o in bench.origins)


def test_data_without_validation_boxes_are_refused(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("split") == "train")
    with pytest.raises(UserError, match=r"boxes\.parquet: no boxes of validation images"):
        make(with_boxes(demo, tmp_path, boxes), tmp_path / "bench", rules)


def test_boxes_of_a_single_image_are_refused(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    boxes = pl.read_parquet(demo / "curated" / "boxes.parquet").filter(pl.col("image_id") == "validation1")
    with pytest.raises(UserError, match="an exemplar of another image"):
        make(with_boxes(demo, tmp_path, boxes), tmp_path / "bench", rules)
    assert not (tmp_path / "bench").exists()


def test_a_folder_that_is_not_a_bench_is_not_overwritten(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not overwritten"):
        make(demo, tmp_path / "bench", replace(rules, num_cases=2))
    assert (tmp_path / "bench" / "thesis.txt").read_text() == "mine"


def test_a_bench_is_replaced_by_a_new_one(demo: Path, tmp_path: Path, rules: CaseRules) -> None:
    make(demo, tmp_path / "bench", replace(rules, num_cases=6))
    assert len(make(demo, tmp_path / "bench", replace(rules, num_cases=2))) == 2
    assert len(list((tmp_path / "bench" / "GT_3500").iterdir())) == 2


def test_exemplars_are_no_larger_than_the_working_size(bench: Bench) -> None:
    assert max(max(bench.case(i).exemplar.shape[:2]) for i in bench.ids) <= 32
    assert any(len(set(bench.case(i).exemplar.shape[:2])) == 2 for i in bench.ids)  # their aspect ratio is kept
    assert np.unique([bench.case(i).exemplar.mean() for i in bench.ids]).size > 3


def test_no_cases_are_an_empty_bench_even_without_validation_boxes(rules: CaseRules, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    made = make_bench(absent, absent, tmp_path / "bench", replace(rules, num_cases=0), seed=0, truth={})
    assert len(made) == 0
    with pytest.raises(UserError, match=r"id_list\.npy: lists no cases; see bench\.num_cases"):
        read_bench(tmp_path / "bench")
