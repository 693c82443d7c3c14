"""Diversity over seeds as columns."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.diversity import feature_diversity, pixel_diversity
from pbe.evaluation.metrics.identity import crop
from pbe.evaluation.scorers.diversity import DiversityScorer
from pbe.evaluation.scoring.case_scores import CaseBatch, Method
from pbe.types import Image


def painted(case: Case, seed: int) -> Image:
    """Paint noise into the mask."""
    noise = np.random.default_rng([case.id, seed]).integers(0, 256, case.source.shape, dtype=np.uint8)
    return np.where(case.mask[..., None] == 1, noise, case.source)


def seeds(num_cases: int) -> list[Method]:
    return [Method(f"seed_{k}", partial(painted, seed=k), key=str(k), num_cases=num_cases) for k in (1, 2)]


@pytest.fixture(scope="module")
def batch(bench: Bench) -> CaseBatch:
    return CaseBatch(tuple(bench.case(i) for i in bench.ids[:4]))


def test_diversity_is_that_of_all_seeds_where_all_have_painted(
    bench: Bench, batch: CaseBatch, encoder: FeatureEncoder
) -> None:
    columns = DiversityScorer(seeds(3), bench, encoder).score(batch, [painted(case, 0) for case in batch.cases])
    case = batch.cases[1]
    drawn = [painted(case, k) for k in range(3)]
    features = encode_batch(encoder, [crop(image, case.box) for image in drawn])
    assert columns["diversity"][1] == pytest.approx(feature_diversity(features))
    assert columns["pixel_diversity"][1] == pytest.approx(pixel_diversity(drawn, case.mask))
    assert all(np.isnan(values).tolist() == [False, False, False, True] for values in columns.values())


def test_without_an_encoder_pixels_are_compared(bench: Bench, batch: CaseBatch) -> None:
    scorer = DiversityScorer(seeds(4), bench, None)
    columns = scorer.score(batch, [painted(case, 0) for case in batch.cases])
    assert tuple(columns) == scorer.columns == ("pixel_diversity",)
    assert columns["pixel_diversity"].min() > 50  # of noise


def test_a_method_without_randomness_has_no_diversity(bench: Bench, batch: CaseBatch, encoder: FeatureEncoder) -> None:
    same = [Method("seed_1", partial(baseline_result, "source", 0))]
    columns = DiversityScorer(same, bench, encoder).score(batch, [case.source for case in batch.cases])
    assert columns["pixel_diversity"].tolist() == [0.0] * 4
    assert columns["diversity"] == pytest.approx(np.zeros(4), abs=1e-4)


def test_the_key_changes_with_the_seeds_results(bench: Bench, encoder: FeatureEncoder) -> None:
    first, other = seeds(4), [replace(each, key="other") for each in seeds(4)]
    assert DiversityScorer(first, bench, encoder).key != DiversityScorer(other, bench, encoder).key
    assert np.isnan(DiversityScorer([], bench, None)._row(bench.case(bench.ids[0]), np.zeros((2, 2, 3), np.uint8)))
