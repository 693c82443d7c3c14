import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pbe.demo.attribute_classifier import Judge
from pbe.evaluation.attributes import accuracies, read_boxes, read_exemplars
from pbe.evaluation.baselines import copy_paste
from pbe.evaluation.bench import Bench, Case, result_path, write_image
from pbe.evaluation.encoders import FeatureEncoder, encode_images
from pbe.evaluation.evaluate import evaluate, write_metrics
from pbe.evaluation.metrics import clip_scores, frechet_distance
from pbe.evaluation.painting import PaintJob
from pbe.evaluation.reference_images import real_images
from pbe.evaluation.results import paint_jobs, results_folder, shown_scales
from pbe.evaluation.scores import score_methods
from pbe.settings import Evaluate
from tests.support import parameters

Metrics = dict[str, object]
Run = Callable[..., dict]


class Paster:
    """Paints by pasting, the more the stronger the guidance; counts the cases it painted."""

    def __init__(self) -> None:
        self.painted = 0

    def __call__(self, bench: Bench, jobs: Sequence[PaintJob], *, progress: object = None) -> None:
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            for case_id in bench.ids[: job.num_cases]:
                path, case = result_path(job.folder, case_id), bench.case(case_id)
                if not path.is_file():
                    amount = min(1.0, job.guidance_scale / 5)
                    mixed = case.source * (1 - amount) + copy_paste(case) * amount
                    write_image(path, mixed.round().astype(np.uint8))
                    self.painted += 1


@pytest.fixture
def run(bench: Bench, demo: Path, encoder: FeatureEncoder, judge: Judge, settings: Evaluate, tmp_path: Path) -> Run:
    def run(paint: Paster | None = None, **changed: object) -> dict:
        real = real_images(demo / "raw", demo / "curated", None, 32, 100)
        given = {"judge": judge, "model_key": "a", "seed": 0, "progress": None, "bench": bench} | changed
        return evaluate(
            given.pop("bench"), real, encoder, given.pop("judge"), settings, paint or Paster(), tmp_path, **given
        )

    return run


def test_the_schema_is_the_contract(run: Run) -> None:
    metrics = run()
    keys = {"fid", "qs", "clip_score", "shape_accuracy", "colour_accuracy", "pattern_accuracy", "unmasked_max_abs_diff"}
    assert set(metrics["methods"]) == {"paint_by_example", "copy_paste", "source"}
    for row in [*metrics["methods"].values(), metrics["unguided"]]:
        assert keys | {"second_colour_accuracy"} == set(row)
        assert row["unmasked_max_abs_diff"] == 0
        assert all(isinstance(v, int | float) for v in row.values())
    assert (metrics["features"], metrics["num_cases"], metrics["num_real_images"]) == ("pixels", 12, 5)


def test_at_full_strength_the_paster_is_the_baseline(run: Run) -> None:
    methods = run()["methods"]
    assert methods["paint_by_example"] == methods["copy_paste"] != methods["source"]


def test_rows_are_what_each_metric_says_on_its_own(
    run: Run, bench: Bench, demo: Path, encoder: FeatureEncoder, judge: Judge
) -> None:
    metrics = run()
    cases = [bench.case(i) for i in bench.ids]
    real = encode_images(encoder, real_images(demo / "raw", demo / "curated", None, 32, 100), 7)
    sources = encode_images(encoder, [c.source for c in cases], 7)
    crops = encode_images(encoder, [c.source[c.box[1] : c.box[3], c.box[0] : c.box[2]] for c in cases], 7)
    exemplars = encode_images(encoder, [c.exemplar for c in cases], 7)
    read = read_boxes(judge, [c.source for c in cases], [c.box for c in cases])
    row = metrics["methods"]["source"]
    assert row["fid"] == pytest.approx(frechet_distance(sources, real), abs=1e-4)
    assert row["clip_score"] == pytest.approx(clip_scores(crops, exemplars).mean(), abs=1e-4)
    assert row["shape_accuracy"] == pytest.approx(accuracies(read, bench.exemplar_truth)["shape_accuracy"], abs=1e-4)
    on_sources = accuracies(read, bench.source_truth)["colour_accuracy"]
    on_exemplars = accuracies(read_exemplars(judge, [c.exemplar for c in cases]), bench.exemplar_truth)
    both = (on_sources + on_exemplars["colour_accuracy"]) / 2
    assert metrics["judge"]["colour_accuracy"] == pytest.approx(both, abs=1e-4)


def test_the_sweep_compares_scales_on_the_same_cases(run: Run, bench: Bench, tmp_path: Path) -> None:
    sweep = run()["guidance_sweep"]
    assert sweep["num_cases"] == 5
    assert list(sweep["scales"]) == ["1", "5", "7"]
    assert sweep["scales"]["5"] == sweep["scales"]["7"] != sweep["scales"]["1"]
    painted = {p.name: len(list(p.glob("*.png"))) for p in (tmp_path / "results").iterdir() if p.is_dir()}
    assert painted == {
        "paint_by_example": 12,
        "paint_by_example_guidance_1": 12,
        "paint_by_example_guidance_7": 5,
        "copy_paste": 12,
    }


def test_results_of_the_same_model_are_used_again(run: Run) -> None:
    first, second, other = Paster(), Paster(), Paster()
    assert run(first) == run(second)
    run(other, model_key="b")
    assert (first.painted, second.painted, other.painted) == (29, 0, 29)


def test_another_bench_is_painted_anew(run: Run, bench: Bench) -> None:
    run()
    paster = Paster()
    assert run(paster, bench=bench.head(6))["num_cases"] == 6
    assert paster.painted == 6 + 6 + 5


def test_without_a_judge_the_accuracies_are_null(run: Run) -> None:
    metrics = run(judge=None)
    assert metrics["methods"]["source"]["shape_accuracy"] is None
    assert metrics["judge"]["colour_accuracy"] is None
    assert metrics["methods"]["source"]["clip_score"] is not None


def test_without_the_truth_the_judge_is_not_asked(run: Run, bench: Bench) -> None:
    metrics = run(bench=Bench(bench.folder, bench.ids))
    assert metrics["methods"]["copy_paste"]["colour_accuracy"] is None


def test_progress_reaches_the_end(run: Run) -> None:
    seen: list[tuple[int, int]] = []
    run(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (29 + 12, 29 + 12)
    assert seen == sorted(seen)


def test_case_scores_average_to_the_table(run: Run, tmp_path: Path) -> None:
    metrics = run()
    lines = [line.split(",") for line in (tmp_path / "case_scores.csv").read_text().splitlines()]
    assert lines[0] == ["case_id", "clip_score", "shape", "colour", "pattern", "second_colour"]
    mean = np.mean([float(line[1]) for line in lines[1:]])
    assert mean == pytest.approx(metrics["methods"]["paint_by_example"]["clip_score"], abs=1e-3)


def test_guidance_1_is_painted_once_where_it_is_the_scale_of_the_table(bench: Bench, tmp_path: Path) -> None:
    settings = parameters.evaluate(guidance_scale=1.0, sweep=(1.0,))
    assert [(j.guidance_scale, j.num_cases) for j in paint_jobs(bench, settings, tmp_path)] == [(1.0, 12)]
    assert results_folder(tmp_path, 1.0, settings).name == "paint_by_example"


def test_the_scale_of_the_table_is_always_part_of_the_sweep(bench: Bench, tmp_path: Path) -> None:
    settings = parameters.evaluate(guidance_scale=4.0, sweep=(7.0, 1.0), sweep_cases=5)
    assert shown_scales(settings) == [1.0, 4.0, 7.0]
    jobs = paint_jobs(bench, settings, tmp_path)
    assert [(j.guidance_scale, j.num_cases) for j in jobs] == [(4, 12), (1, 12), (7, 5)]


def test_metrics_are_written_as_json(run: Run, tmp_path: Path) -> None:
    metrics = run()
    write_metrics(tmp_path / "metrics.json", metrics)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_a_result_of_another_size_is_named(bench: Bench, encoder: FeatureEncoder) -> None:
    with pytest.raises(ValueError, match=r"case 0: the result is \(2, 2, 3\)"):
        score_methods(bench, {"odd": lambda _: np.zeros((2, 2, 3), np.uint8)}, encoder, None, 4)


def test_a_change_outside_the_mask_is_found(bench: Bench, encoder: FeatureEncoder) -> None:
    def drifted(case: Case) -> np.ndarray:
        return np.where(case.source < 128, case.source + 3, case.source - 3).astype(np.uint8)

    scores, _ = score_methods(bench, {"drifted": drifted}, encoder, None, 5)
    assert scores["drifted"].unmasked_max_abs_diff.tolist() == [3] * 12
