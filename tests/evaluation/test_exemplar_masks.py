"""The masks of exemplars' objects that a bench of own data carries."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pbe.dataset.object_masks import pack_mask
from pbe.evaluation.benches.bench import Bench, exemplar_mask_path
from pbe.evaluation.benches.case_selection import CaseRules, make_bench


def left_half(box: dict[str, int]) -> bytes:
    shape = np.zeros((box["y1"] - box["y0"], box["x1"] - box["x0"]), np.uint8)
    shape[:, : shape.shape[1] // 2] = 1
    return pack_mask(shape)


@pytest.fixture(scope="module")
def masked_bench(demo: Path, rules: CaseRules, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench of boxes of which every second one has a mask of its object: the box's left half."""
    root = tmp_path_factory.mktemp("masks")
    shutil.copytree(demo / "curated", root / "curated")
    boxes = pl.read_parquet(root / "curated" / "boxes.parquet").sort("box_id")
    masks = [left_half(box) if n % 2 else None for n, box in enumerate(boxes.iter_rows(named=True))]
    masked = boxes.with_columns(object_mask=pl.Series(masks, dtype=pl.Binary))
    masked.write_parquet(root / "curated" / "boxes.parquet")
    return make_bench(demo / "raw", root / "curated", root / "bench", rules, seed=0, truth={})


def boxes_of(bench: Bench) -> dict[str, dict[str, int]]:
    rows = pl.read_parquet(bench.folder.parent / "curated" / "boxes.parquet").iter_rows(named=True)
    return {row["box_id"]: row for row in rows}


def test_a_mask_marks_the_object_in_the_exemplar(masked_bench: Bench, rules: CaseRules) -> None:
    boxes, num_masks = boxes_of(masked_bench), 0
    for origin in masked_bench.origins or ():
        case, box = masked_bench.case(origin.case_id), boxes[origin.exemplar_box_id]
        assert (case.exemplar_mask is not None) == (box["object_mask"] is not None)
        if case.exemplar_mask is None:
            continue
        num_masks += 1
        assert case.exemplar_mask.shape == case.exemplar.shape[:2]
        width, height = box["x1"] - box["x0"], box["y1"] - box["y0"]
        pad = round(rules.pad_frac * max(width, height))
        left, top = min(pad, box["x0"]), min(pad, box["y0"])
        scale = case.exemplar.shape[0] / (height + top + min(pad, box["height"] - box["y1"]))
        ys, xs = np.nonzero(case.exemplar_mask)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / scale
        assert found == pytest.approx([left, top, left + width // 2, top + height], abs=2)
    assert num_masks > 0


def test_without_masks_a_bench_has_the_files_of_cocoee(bench: Bench) -> None:
    assert not exemplar_mask_path(bench.folder, bench.ids[0]).parent.exists()
    assert bench.case(bench.ids[0]).exemplar_mask is None


def test_the_masks_change_nothing_else(masked_bench: Bench, bench: Bench) -> None:
    for case_id in bench.ids:
        one, other = masked_bench.case(case_id), bench.case(case_id)
        np.testing.assert_array_equal(one.source, other.source)
        np.testing.assert_array_equal(one.exemplar, other.exemplar)
