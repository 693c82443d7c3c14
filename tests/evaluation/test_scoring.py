"""metrics.json and the files beside it, for methods with known results."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pbe.demo.attribute_classifier import AttributeClassifier
from pbe.evaluation.attributes import accuracies
from pbe.evaluation.baselines import baseline_result
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.encoders.encode import encode_images
from pbe.evaluation.encoders.features import CorrectedFeatures
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.frechet import frechet_distance
from pbe.evaluation.metrics.kid import kernel_distance
from pbe.evaluation.metrics.quality import fit_quality
from pbe.evaluation.painting.plan import GuidanceSweep
from pbe.evaluation.reference.statistics import ReferenceStatistics, make_reference_statistics
from pbe.evaluation.scorers.attributes import AttributeScorer
from pbe.evaluation.scoring.case_scores import Method, painted_method
from pbe.evaluation.scoring.comparison import MeasuredProtocol
from pbe.evaluation.scoring.protocols import EvaluationProtocol
from pbe.evaluation.scoring.results import Metrics, measured_protocols, score_results, write_metrics
from pbe.types import Image
from tests.support.paster import Paster

Score = Callable[..., Metrics]
SOURCE, COPY_PASTE = (Method(name, partial(baseline_result, name, 0)) for name in ("source", "copy_paste"))


@pytest.fixture(scope="module")
def reference(encoder: FeatureEncoder) -> ReferenceStatistics:
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    return make_reference_statistics(images, CorrectedFeatures(encoder), 32, total=60, seed=0, official=False)


@pytest.fixture(scope="module")
def protocols(encoder: FeatureEncoder, reference: ReferenceStatistics) -> list[MeasuredProtocol]:
    return measured_protocols([EvaluationProtocol("corrected", CorrectedFeatures(encoder), "")], [reference])


@pytest.fixture
def score(
    bench: Bench,
    protocols: list[MeasuredProtocol],
    classifier: AttributeClassifier,
    sweep: GuidanceSweep,
    tmp_path: Path,
) -> Score:
    """Return a function that scores a painter that pastes, and baselines, with the given arguments changed."""
    jobs = sweep.jobs(bench, tmp_path)
    Paster()(bench, jobs)
    painted = [painted_method(job.folder.name, job.folder, bench, job.num_cases) for job in jobs]
    methods = [painted[0], COPY_PASTE, SOURCE, *painted[1:]]

    def score(**changes: Any) -> Metrics:
        given: dict[str, Any] = {
            "bench": bench,
            "methods": methods,
            "scorers": [AttributeScorer(classifier, "random weights")],
            "protocols": protocols,
            "out": tmp_path,
            "bench_digest": "b" * 64,
            "conditions": {"num_steps": 2},
            "confidence": 0.95,
            "draws": 200,
            "seed": 0,
            "sweep": sweep,
        }
        return score_results(**given | changes)

    return score


def test_metrics_json_has_the_documented_keys(score: Score) -> None:
    metrics = score()
    accuracy_keys = ["shape_accuracy", "colour_accuracy", "pattern_accuracy", "second_colour_accuracy"]
    assert list(metrics["methods"]) == ["paint_by_example", "copy_paste", "source"]
    keys = ["fid", "qs", "clip_score", *accuracy_keys, "unmasked_max_abs_diff", "kid"]
    ends = ["fid_low", "fid_high", "clip_score_low", "clip_score_high"]
    assert list(metrics["methods"]["paint_by_example"]) == [*keys, *ends]
    for row in [metrics["methods"]["copy_paste"], metrics["methods"]["source"], metrics["unguided"]]:
        assert list(row) == keys
        assert row["unmasked_max_abs_diff"] == 0
        assert all(isinstance(v, int | float) for v in row.values())
    assert list(metrics["classifier_accuracy"]) == accuracy_keys
    assert (metrics["features"], metrics["num_cases"], metrics["num_real_images"]) == ("pixels", 12, 60)
    assert (metrics["guidance_scale"], metrics["qs_components"], metrics["protocol"]) == (5.0, 3, "corrected")
    assert metrics["num_steps"] == 2  # a condition


def test_a_painter_that_pastes_scores_as_the_pasted_baseline_and_is_a_tie(score: Score, tmp_path: Path) -> None:
    methods = score()["methods"]
    assert methods["paint_by_example"].items() > methods["copy_paste"].items() != methods["source"].items()
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    for metric, difference in comparison["differences"]["copy_paste"].items():
        assert (difference["value"], difference["verdict"]) == (0, "tie"), metric
    clip = comparison["differences"]["source"]["clip_score"]
    assert clip["low"] <= clip["value"] <= clip["high"]
    assert clip["value"] == pytest.approx(
        methods["paint_by_example"]["clip_score"] - methods["source"]["clip_score"], abs=2e-4
    )


def test_rows_agree_with_each_metric_computed_alone(
    score: Score, bench: Bench, reference: ReferenceStatistics, encoder: FeatureEncoder, classifier: AttributeClassifier
) -> None:
    metrics = score()
    cases = [bench.case(i) for i in bench.ids]
    sources = encode_images(encoder, [c.source for c in cases], 7)
    crops = encode_images(encoder, [c.source[c.box[1] : c.box[3], c.box[0] : c.box[2]] for c in cases], 7)
    row = metrics["methods"]["source"]
    assert row["fid"] == pytest.approx(frechet_distance(sources, reference.moments), abs=1e-4)
    assert row["kid"] == pytest.approx(1000 * kernel_distance(sources, reference.features), abs=1e-3)
    assert row["qs"] == pytest.approx(fit_quality(reference.features, 0).score(sources), abs=1e-4)
    assert row["clip_score"] == pytest.approx(clip_scores(crops, _stretched(encoder, cases)).mean(), abs=2)

    names, exemplar_truth, source_truth = classifier.attributes, bench.exemplar_truth, bench.source_truth
    assert exemplar_truth is not None
    assert source_truth is not None
    read = classifier.read_boxes([c.source for c in cases], [c.box for c in cases])
    found = accuracies(names, read, exemplar_truth)
    assert {key: row[key] for key in found} == pytest.approx(found, abs=1e-4)
    read += classifier.read_exemplars([c.exemplar for c in cases])
    assert metrics["classifier_accuracy"] == pytest.approx(
        accuracies(names, read, [*source_truth, *exemplar_truth]), abs=1e-4
    )


def _stretched(encoder: FeatureEncoder, cases: Sequence[Case]) -> Any:
    return CorrectedFeatures(encoder).exemplars([c.exemplar for c in cases])


def test_the_sweep_compares_scales_on_the_same_cases(score: Score) -> None:
    sweep = score()["guidance_sweep"]
    assert sweep["num_cases"] == 5
    assert list(sweep["scales"]) == ["1", "5", "7"]
    assert sweep["scales"]["5"] == sweep["scales"]["7"] != sweep["scales"]["1"]


def test_without_a_sweep_any_methods_can_be_scored(score: Score, tmp_path: Path) -> None:
    metrics = score(methods=[COPY_PASTE, SOURCE], sweep=None, scorers=[])
    assert list(metrics["methods"]) == ["copy_paste", "source"]
    assert metrics["classifier_accuracy"] == {}
    assert not {"unguided", "guidance_sweep", "guidance_scale"} & set(metrics)
    assert list(json.loads((tmp_path / "comparison.json").read_text())["differences"]) == ["source"]


def test_without_the_truth_there_are_no_accuracies(score: Score, bench: Bench) -> None:
    metrics = score(bench=Bench(bench.folder, bench.ids), bench_digest="without origins")
    rows = [*metrics["methods"].values(), metrics["unguided"], *metrics["guidance_sweep"]["scales"].values()]
    assert all(row["shape_accuracy"] is None for row in rows)
    assert set(metrics["classifier_accuracy"].values()) == {None}


def test_a_second_scoring_gives_the_same_files_and_scores_nothing(score: Score, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix in (".json", ".parquet", ".npz")}

    first, kept = score(), files()
    seen: list[tuple[int, int]] = []
    again = score(progress=lambda done, total, note="": seen.append((done, total)))
    assert again == first
    assert files() == kept
    assert seen == [(53, 53)]  # 4 methods of 12 cases, and 5 at guidance 7


def test_case_scores_average_to_the_metrics(score: Score, bench: Bench, tmp_path: Path) -> None:
    metrics = score()
    table = pl.read_parquet(tmp_path / "case_scores.parquet")
    assert len(table) == 4 * 12 + 5
    assert set(table["method"]) == {
        "paint_by_example", "copy_paste", "source", "paint_by_example_guidance_1", "paint_by_example_guidance_7",
    }  # fmt: skip
    painted = table.filter(pl.col("method") == "paint_by_example")
    assert painted["case_id"].to_list() == list(bench.ids)
    row = metrics["methods"]["paint_by_example"]
    assert painted["clip_score"].mean() == pytest.approx(row["clip_score"], abs=1e-4)
    assert painted["qs"].mean() == pytest.approx(row["qs"], abs=1e-4)
    assert 100 * painted["shape_correct"].mean() == pytest.approx(row["shape_accuracy"], abs=1e-4)  # type: ignore[operator]
    assert bench.origins is not None
    assert painted["label"].to_list() == [origin.exemplar_label for origin in bench.origins]


def test_features_lie_beside_the_scores(score: Score, reference: ReferenceStatistics, tmp_path: Path) -> None:
    metrics = score()
    with np.load(tmp_path / "features.npz") as file:
        arrays = dict(file)
    assert arrays["paint_by_example"].shape == (12, 8)
    np.testing.assert_array_equal(arrays["real"], reference.features)
    np.testing.assert_array_equal(arrays["real.covariance"], reference.moments.covariance)
    fid = frechet_distance(arrays["source"], reference.moments)
    assert fid == pytest.approx(metrics["methods"]["source"]["fid"], abs=1e-4)


def test_conditions_change_with_what_decides_the_numbers(score: Score, tmp_path: Path) -> None:
    score()
    first = json.loads((tmp_path / "evaluation.json").read_text())
    assert first["bench_digest"] == "b" * 64
    assert (first["num_cases"], first["num_steps"], first["encoder"], first["protocol"]) == (
        12,
        2,
        "pixels",
        "corrected",
    )
    assert first["scorers"]["AttributeScorer"] == "random weights"
    score(conditions={"num_steps": 3})
    second = json.loads((tmp_path / "evaluation.json").read_text())
    assert {key for key in first if first[key] != second[key]} == {"num_steps"}


def test_one_case_has_no_fid(score: Score, bench: Bench) -> None:
    metrics = score(bench=bench.head(1), methods=[SOURCE], sweep=None, bench_digest="one")
    row = metrics["methods"]["source"]
    assert row["fid"] is None
    assert row["clip_score"] is not None


def test_a_change_outside_the_mask_is_found(score: Score) -> None:
    def shifted(case: Case) -> Image:
        return np.where(case.source < 128, case.source + 3, case.source - 3).astype(np.uint8)

    metrics = score(methods=[Method("shifted", shifted)], sweep=None)
    assert metrics["methods"]["shifted"]["unmasked_max_abs_diff"] == 3


def test_two_protocols_have_two_sets_of_keys(
    score: Score, encoder: FeatureEncoder, reference: ReferenceStatistics, tmp_path: Path
) -> None:
    features = CorrectedFeatures(encoder)
    both = [EvaluationProtocol("corrected", features, ""), EvaluationProtocol("official", features, "_official")]
    metrics = score(protocols=measured_protocols(both, [reference]), methods=[COPY_PASTE, SOURCE], sweep=None)
    row = metrics["methods"]["source"]
    assert metrics["protocol"] == "both"
    assert row["fid_official"] == pytest.approx(row["fid"], abs=1e-3)
    assert row["clip_score_official"] == row["clip_score"]
    assert "qs_official" not in row  # this reference has no mixture of 20 components
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert {"fid", "fid_official", "clip_score_official"} <= set(found["differences"]["source"])
    assert set(found["floor"]) == {"fid", "fid_official"}


def test_metrics_are_written_as_json(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"fid": 0.5, "qs": None})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"fid": 0.5, "qs": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path / "metrics.json", {"fid": float("nan")})
