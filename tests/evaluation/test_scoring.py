"""metrics.json: its keys and values for painters with known results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.demo.attribute_classifier import AttributeClassifier
from pbe.evaluation.attributes import accuracies
from pbe.evaluation.bench import Bench, Case, result_path, write_image
from pbe.evaluation.case_scores import score_methods
from pbe.evaluation.encoders.encode import encode_images
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.metrics.clip_score import clip_scores
from pbe.evaluation.metrics.frechet import frechet_distance
from pbe.evaluation.metrics.quality import fit_quality
from pbe.evaluation.paint_plan import GuidanceSweep, paint_bench
from pbe.evaluation.painting import Sampling
from pbe.evaluation.reference_images import reference_images
from pbe.evaluation.scoring import Metrics, score_bench, write_metrics
from tests.support.paster import Paster

Run = Callable[..., Metrics]


@pytest.fixture
def run(
    bench: Bench,
    demo: Path,
    encoder: FeatureEncoder,
    classifier: AttributeClassifier,
    sweep: GuidanceSweep,
    sampling: Sampling,
    tmp_path: Path,
) -> Run:
    """Return a function that paints and scores the bench, with the given arguments changed."""
    references = list(reference_images(demo / "raw", demo / "curated", None, 32, 100))

    def run(**changes: Any) -> Metrics:
        given: dict[str, Any] = {"bench": bench, "sweep": sweep, "classifier": classifier} | changes
        paint_bench(given["bench"], given["sweep"], sampling, Paster(), tmp_path, model_key="a")
        return score_bench(out=tmp_path, sampling=sampling, reference_images=iter(references), encoder=encoder, **given)

    return run


def test_metrics_json_has_the_documented_keys(run: Run) -> None:
    metrics = run()
    accuracy_keys = ["shape_accuracy", "colour_accuracy", "pattern_accuracy", "second_colour_accuracy"]
    assert list(metrics["methods"]) == ["paint_by_example", "copy_paste", "source"]
    for row in [*metrics["methods"].values(), metrics["unguided"]]:
        assert list(row) == ["fid", "qs", "clip_score", *accuracy_keys, "unmasked_max_abs_diff"]
        assert row["unmasked_max_abs_diff"] == 0
        assert all(isinstance(v, int | float) for v in row.values())
    assert list(metrics["classifier_accuracy"]) == accuracy_keys
    assert (metrics["features"], metrics["num_cases"], metrics["num_real_images"]) == ("pixels", 12, 5)
    assert (metrics["guidance_scale"], metrics["num_steps"], metrics["max_magnification"]) == (5.0, 2, 2.0)


def test_a_painter_that_pastes_scores_as_the_pasted_baseline(run: Run) -> None:
    methods = run()["methods"]
    assert methods["paint_by_example"] == methods["copy_paste"] != methods["source"]


def test_rows_agree_with_each_metric_computed_alone(
    run: Run, bench: Bench, demo: Path, encoder: FeatureEncoder, classifier: AttributeClassifier
) -> None:
    metrics = run()
    cases = [bench.case(i) for i in bench.ids]
    references = encode_images(encoder, reference_images(demo / "raw", demo / "curated", None, 32, 100), 7)
    sources = encode_images(encoder, [c.source for c in cases], 7)
    crops = encode_images(encoder, [c.source[c.box[1] : c.box[3], c.box[0] : c.box[2]] for c in cases], 7)
    exemplars = encode_images(encoder, [c.exemplar for c in cases], 7)
    row = metrics["methods"]["source"]
    assert row["fid"] == pytest.approx(frechet_distance(sources, references), abs=1e-4)
    assert row["qs"] == pytest.approx(fit_quality(references, 0).score(sources), abs=1e-4)
    assert row["clip_score"] == pytest.approx(clip_scores(crops, exemplars).mean(), abs=1e-4)

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


def test_the_sweep_compares_scales_on_the_same_cases(run: Run, tmp_path: Path) -> None:
    sweep = run()["guidance_sweep"]
    assert sweep["num_cases"] == 5
    assert list(sweep["scales"]) == ["1", "5", "7"]
    assert sweep["scales"]["5"] == sweep["scales"]["7"] != sweep["scales"]["1"]
    saved = {p.name: len(list(p.glob("*.png"))) for p in (tmp_path / "results").iterdir() if p.is_dir()}
    assert saved == {
        "paint_by_example": 12,
        "paint_by_example_guidance_1": 12,
        "paint_by_example_guidance_7": 5,
        "copy_paste": 12,
    }


def test_without_a_classifier_there_are_no_accuracies(run: Run) -> None:
    metrics = run(classifier=None)
    rows = [*metrics["methods"].values(), metrics["unguided"], *metrics["guidance_sweep"]["scales"].values()]
    assert not any(key.endswith("_accuracy") for row in rows for key in row)
    assert metrics["classifier_accuracy"] == {}
    assert metrics["methods"]["source"]["clip_score"] is not None


def test_without_the_truth_there_are_no_accuracies(run: Run, bench: Bench) -> None:
    assert run(bench=Bench(bench.folder, bench.ids)) == run(classifier=None) | {"num_reused_boxes": 0}


def test_progress_counts_every_case(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    run(progress=lambda done, total, note="": seen.append((done, total)))
    assert seen == [(4, 12), (8, 12), (12, 12)]


def test_case_scores_average_to_the_metrics(run: Run, tmp_path: Path) -> None:
    metrics = run()
    lines = [line.split(",") for line in (tmp_path / "case_scores.csv").read_text().splitlines()]
    assert lines[0] == ["case_id", "clip_score", "shape", "colour", "pattern", "second_colour", "caption"]
    mean = np.mean([float(line[1]) for line in lines[1:]])
    assert mean == pytest.approx(metrics["methods"]["paint_by_example"]["clip_score"], abs=1e-3)
    assert all(line[-1].startswith(f"a {line[4]} {line[3]} {line[2]}") for line in lines[1:])


def test_without_a_classifier_case_scores_have_no_readings(run: Run, tmp_path: Path) -> None:
    run(classifier=None)
    assert (tmp_path / "case_scores.csv").read_text().startswith("case_id,clip_score\n0,")


def test_a_sweep_of_guidance_1_alone_has_one_row(run: Run) -> None:
    metrics = run(sweep=GuidanceSweep(1.0, (1.0,), 5))
    assert metrics["unguided"] == metrics["methods"]["paint_by_example"]
    assert list(metrics["guidance_sweep"]["scales"]) == ["1"]


def test_metrics_are_written_as_json(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"fid": 0.5, "qs": None})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"fid": 0.5, "qs": None}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path / "metrics.json", {"fid": float("nan")})


def test_a_result_of_another_size_is_refused(bench: Bench, encoder: FeatureEncoder) -> None:
    with pytest.raises(ValueError, match=r"case 0: the result is \(2, 2, 3\)"):
        score_methods(bench, {"small": lambda _: np.zeros((2, 2, 3), np.uint8)}, encoder, None, 4)


def test_a_change_outside_the_mask_is_found(bench: Bench, encoder: FeatureEncoder) -> None:
    def shifted(case: Case) -> NDArray[np.uint8]:
        return np.where(case.source < 128, case.source + 3, case.source - 3).astype(np.uint8)

    scores, _ = score_methods(bench, {"shifted": shifted}, encoder, None, 5)
    assert scores["shifted"].unmasked_max_abs_diff.tolist() == [3] * 12


def test_a_result_that_is_missing_is_named(run: Run, bench: Bench, sweep: GuidanceSweep, tmp_path: Path) -> None:
    run()
    path = result_path(tmp_path / "results" / sweep.method_name(1.0), bench.ids[3])
    assert path.is_file()
    write_image(path, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="case 3: the result is"):
        run()
