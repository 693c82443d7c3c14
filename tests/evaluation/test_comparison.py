"""comparison.json: metrics with intervals, paired differences, the floor of FID, and saturated metrics."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.features import CorrectedFeatures
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.frechet import fit_moments, frechet_distance, perfect_distances
from pbe.evaluation.metrics.quality import fit_quality
from pbe.evaluation.reference.statistics import ReferenceStatistics
from pbe.evaluation.scoring.case_scores import MethodScores
from pbe.evaluation.scoring.comparison import Comparison, MeasuredProtocol, fid_floor
from pbe.evaluation.scoring.protocols import EvaluationProtocol
from pbe.evaluation.scoring.results import measured_protocols

IDS = tuple(range(100, 160))
BENCH = Bench(Path("bench"), IDS)
NO_FEATURES: Mapping[str, NDArray[np.float32]] = {}


def reference(num_images: int = 300, seed: int = 0) -> ReferenceStatistics:
    features = np.random.default_rng(seed).standard_normal((num_images, 4)).astype(np.float32)
    return ReferenceStatistics(fit_moments(features), fit_quality(features, 0), None, features, 32, "normal", "0")


@pytest.fixture
def protocols(encoder: FeatureEncoder) -> list[MeasuredProtocol]:
    return measured_protocols([EvaluationProtocol("corrected", CorrectedFeatures(encoder), "")], [reference()])


def compare(scores: Mapping[str, MethodScores], protocols: list[MeasuredProtocol]) -> Comparison:
    return Comparison(BENCH, scores, protocols, confidence=0.95, draws=500, seed=0)


def columns(**values: NDArray[np.float64]) -> MethodScores:
    return MethodScores(IDS, values, NO_FEATURES)


def test_a_planted_difference_is_found_and_equal_methods_are_a_tie(protocols: list[MeasuredProtocol]) -> None:
    rng = np.random.default_rng(0)
    hardness = 10 * rng.standard_normal(60)
    scores = {
        "mine": columns(identity=50 + hardness, seam_visibility=1 + 0.01 * hardness),
        "worse": columns(identity=49 + hardness + 0.3 * rng.standard_normal(60), seam_visibility=2 + 0.01 * hardness),
        "equal": columns(identity=50 + hardness + rng.standard_normal(60), seam_visibility=1 + 0.01 * hardness),
    }
    found = compare(scores, protocols).summary("mine")["differences"]
    assert list(found) == ["worse", "equal"]
    assert found["worse"]["identity"]["verdict"] == found["worse"]["seam_visibility"]["verdict"] == "better"
    assert found["worse"]["identity"]["value"] == pytest.approx(1, abs=0.1)
    assert found["worse"]["seam_visibility"]["value"] == pytest.approx(-1)
    assert found["equal"]["identity"]["verdict"] == found["equal"]["seam_visibility"]["verdict"] == "tie"
    other_way = compare(scores, protocols).differences("worse", "mine")
    assert {difference["verdict"] for difference in other_way.values()} == {"worse"}


def test_attributes_are_shares_of_correct_cases(protocols: list[MeasuredProtocol]) -> None:
    correct = np.array([1.0] * 30 + [0.0] * 10 + [np.nan] * 20)
    comparison = compare(
        {"mine": columns(shape_correct=correct), "other": columns(shape_correct=0 * correct)}, protocols
    )
    found = comparison.methods["mine"]["shape_accuracy"]
    assert (found.value, found.num_cases) == (75.0, 40)
    assert found.interval is not None
    assert 55 < found.interval.low < 75 < found.interval.high < 90  # Wilson: 59.8 to 85.8
    difference = comparison.differences("mine", "other")["shape_accuracy"]
    assert (difference["value"], difference["num_cases"], difference["verdict"]) == (75.0, 40, "better")


def test_methods_are_compared_on_the_cases_that_both_have(protocols: list[MeasuredProtocol]) -> None:
    some = MethodScores(IDS[30:], {"identity": np.arange(30.0)}, NO_FEATURES)
    comparison = compare({"mine": columns(identity=np.arange(60.0)), "some": some}, protocols)
    difference = comparison.differences("mine", "some")["identity"]
    assert (difference["value"], difference["low"], difference["high"]) == (30.0, 30.0, 30.0)
    assert difference["num_cases"] == 30


def test_a_maximum_has_neither_interval_nor_difference(protocols: list[MeasuredProtocol]) -> None:
    scores = {name: columns(unmasked_max_abs_diff=np.arange(60.0)) for name in ("mine", "other")}
    comparison = compare(scores, protocols)
    assert comparison.methods["mine"]["unmasked_max_abs_diff"].summary() == {"value": 59.0, "num_cases": 60}
    assert comparison.differences("mine", "other") == {}


def test_a_column_that_is_no_metric_is_left_out(protocols: list[MeasuredProtocol]) -> None:
    scores = {"mine": columns(mask_frac=np.ones(60), shape_on_source=np.ones(60), identity=np.full(60, np.nan))}
    assert compare(scores, protocols).methods["mine"] == {}


def test_a_metric_at_its_limit_for_every_method_separates_nothing(protocols: list[MeasuredProtocol]) -> None:
    full, nearly = np.full(60, 100.0), np.array([100.0] * 58 + [40.0] * 2)
    scores = {"mine": columns(qs=full), "other": columns(qs=nearly)}
    saturated = compare(scores, protocols)
    assert saturated.saturated == ["qs"]
    assert saturated.differences("mine", "other") == {}
    scores["third"] = columns(qs=np.linspace(0, 99, 60))
    assert compare(scores, protocols).saturated == []
    assert "qs" in compare(scores, protocols).differences("mine", "other")


def test_fid_and_kid_of_a_shifted_method_are_worse_and_a_second_sample_is_a_tie(
    protocols: list[MeasuredProtocol],
) -> None:
    rng = np.random.default_rng(1)
    base, noise = rng.standard_normal((2, 60, 4))
    features = {"mine": base, "shifted": base + 0.8, "another": 0.6 * base + 0.8 * noise}
    scores = {name: MethodScores(IDS, {}, {"corrected": each.astype(np.float32)}) for name, each in features.items()}
    comparison = compare(scores, protocols)
    for metric in ("fid", "kid"):
        assert comparison.differences("mine", "shifted")[metric]["verdict"] == "better"
        assert comparison.differences("mine", "another")[metric]["verdict"] == "tie"
    fid = comparison.summary("mine")["methods"]["mine"]["fid"]
    real = protocols[0].reference
    assert fid["value"] == pytest.approx(frechet_distance(scores["mine"].features["corrected"], real.moments))
    assert fid["low"] < fid["value"] < fid["high"]
    assert 0 < fid["bias"] < fid["value"] + 0.1


def test_the_floor_is_the_fid_of_real_images_to_others() -> None:
    real = reference(num_images=400)
    floor = fid_floor(real, 60, 0.95, seed=0)
    assert (floor["num_images"], floor["sample"]) == (60, "real images")
    rng = np.random.default_rng(5)
    expected = [
        frechet_distance(rng.standard_normal((60, 4)), rng.standard_normal((340, 4))) for _ in range(100)
    ]  # the reference is normal, too
    assert floor["value"] == pytest.approx(np.mean(expected), rel=0.25)
    assert floor["low"] < floor["value"] < floor["high"]


def test_the_floor_of_a_reference_that_cannot_be_divided_is_that_of_a_gaussian() -> None:
    real = reference(num_images=100)
    floor = fid_floor(real, 60, 0.95, seed=3)
    expected = perfect_distances(real.moments, 60, 100, 20, np.random.default_rng(3))
    assert (floor["value"], floor["sample"]) == (expected.mean(), "a Gaussian with their moments")
