"""Columns of the background, the seam and copying, case by case."""

import numpy as np
import pytest

from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.metrics.copy_paste import copy_paste_score
from pbe.evaluation.metrics.preservation import keep_background, psnr, ring_around, ssim
from pbe.evaluation.metrics.seams import seam_visibility
from pbe.evaluation.scorers.pixels import BackgroundScorer, CopyPasteScorer, SeamScorer
from pbe.evaluation.scoring.case_scores import CaseBatch
from pbe.types import Image


@pytest.fixture(scope="module")
def batch(bench: Bench) -> CaseBatch:
    return CaseBatch(tuple(bench.case(i) for i in bench.ids[:4]))


def darker(case: Case) -> Image:
    return (case.source * 0.9).astype(np.uint8)


def test_the_background_of_the_source_is_perfect(batch: CaseBatch) -> None:
    scorer = BackgroundScorer()
    columns = scorer.score(batch, [case.source for case in batch.cases])
    assert scorer.columns == tuple(columns) == ("background_psnr", "background_ssim", "ring_psnr", "ring_ssim")
    assert {name: set(values) for name, values in columns.items()} == {
        "background_psnr": {100.0}, "background_ssim": {1.0}, "ring_psnr": {100.0}, "ring_ssim": {1.0},
    }  # fmt: skip


def test_a_pasted_exemplar_leaves_the_background(batch: CaseBatch) -> None:
    columns = BackgroundScorer().score(batch, [baseline_result("copy_paste", 0, case) for case in batch.cases])
    assert set(columns["ring_ssim"]) == {1.0}


def test_a_changed_background_has_the_values_of_the_metrics(batch: CaseBatch) -> None:
    columns = BackgroundScorer().score(batch, [darker(case) for case in batch.cases])
    case = batch.cases[2]
    kept, ring = keep_background(darker(case), case.source, case.mask), ring_around(case.mask)
    assert columns["ring_psnr"][2] == psnr(kept, case.source, ring)
    assert columns["ring_ssim"][2] == ssim(kept, case.source, ring)
    assert columns["background_psnr"][2] == psnr(kept, case.source, case.mask == 0)


def test_a_mask_of_the_whole_picture_has_no_background_and_no_seam() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = CaseBatch((Case(0, image, np.ones((16, 16), np.uint8), image),))
    for scorer in (BackgroundScorer(), SeamScorer()):
        assert all(np.isnan(values).all() for values in scorer.score(whole, [image]).values())


def test_a_paste_is_a_copy_with_a_seam(batch: CaseBatch) -> None:
    sources, pastes = (
        [case.source for case in batch.cases],
        [baseline_result("copy_paste", 0, case) for case in batch.cases],
    )
    seams = [SeamScorer().score(batch, results)["seam_visibility"] for results in (sources, pastes)]
    copies = [CopyPasteScorer().score(batch, results)["copy_paste_score"] for results in (sources, pastes)]
    first = batch.cases[0]
    assert seams[1][0] == seam_visibility(pastes[0], first.mask)
    assert copies[1][0] == copy_paste_score(pastes[0], first.mask, first.exemplar)
    assert seams[1].mean() > 1.5 * seams[0].mean()
    assert copies[1].min() > 95 > 60 > copies[0].mean()
