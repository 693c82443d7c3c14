"""Which cases are painted at which guidance scales, and which results are reused."""

from dataclasses import replace
from pathlib import Path

import pytest

from pbe.evaluation.bench import Bench
from pbe.evaluation.paint_plan import GuidanceSweep, bench_digest, paint_bench, results_folder
from pbe.evaluation.painting import Sampling
from tests.support.paster import Paster


def num_painted(bench: Bench, sweep: GuidanceSweep, sampling: Sampling, out: Path, model_key: str = "a") -> int:
    paster = Paster()
    paint_bench(bench, sweep, sampling, paster, out, model_key=model_key)
    return paster.num_painted


def planned(sweep: GuidanceSweep, bench: Bench) -> list[tuple[float, int]]:
    return [(job.guidance_scale, job.num_cases) for job in sweep.jobs(bench, Path("out"))]


def test_all_cases_are_painted_at_the_evaluated_scale_and_at_1(bench: Bench) -> None:
    sweep = GuidanceSweep(scale=4.0, compared=(7.0, 1.0), num_cases=5)
    assert sweep.shown == [1.0, 4.0, 7.0]
    assert planned(sweep, bench) == [(4.0, 12), (1.0, 12), (7.0, 5)]


def test_the_sweep_paints_no_more_cases_than_the_bench_has(bench: Bench) -> None:
    assert planned(GuidanceSweep(4.0, (7.0,), 99), bench) == [(4.0, 12), (1.0, 12), (7.0, 12)]


def test_guidance_1_is_painted_once_when_it_is_the_evaluated_scale(bench: Bench) -> None:
    sweep = GuidanceSweep(1.0, (1.0,), 5)
    assert planned(sweep, bench) == [(1.0, 12)]
    assert results_folder(Path("out"), sweep, 1.0) == Path("out/results/paint_by_example")


def test_results_are_named_by_their_scale(sweep: GuidanceSweep) -> None:
    names = [sweep.method_name(scale) for scale in (5.0, 1.0, 7.5)]
    assert names == ["paint_by_example", "paint_by_example_guidance_1", "paint_by_example_guidance_7.5"]


def test_results_of_the_same_model_are_reused(
    bench: Bench, sweep: GuidanceSweep, sampling: Sampling, tmp_path: Path
) -> None:
    assert num_painted(bench, sweep, sampling, tmp_path) == 12 + 12 + 5
    assert num_painted(bench, sweep, sampling, tmp_path) == 0
    assert num_painted(bench, sweep, sampling, tmp_path, model_key="b") == 12 + 12 + 5


def test_results_of_another_bench_are_removed(
    bench: Bench, sweep: GuidanceSweep, sampling: Sampling, tmp_path: Path
) -> None:
    num_painted(bench, sweep, sampling, tmp_path)
    assert num_painted(bench.head(6), sweep, sampling, tmp_path) == 6 + 6 + 5
    assert bench_digest(bench) != bench_digest(bench.head(6))


@pytest.mark.parametrize(
    "other",
    [Sampling(3, 2.0, 4, 0), Sampling(2, 1.0, 4, 0), Sampling(2, 2.0, 5, 0), Sampling(2, 2.0, 4, 1)],
    ids=["num_steps", "max_magnification", "batch_size", "seed"],
)
def test_results_of_another_sampling_are_removed(
    bench: Bench, sweep: GuidanceSweep, sampling: Sampling, tmp_path: Path, other: Sampling
) -> None:
    num_painted(bench, sweep, sampling, tmp_path)
    assert num_painted(bench, sweep, other, tmp_path) == 12 + 12 + 5


def test_a_scale_that_is_added_is_painted_beside_the_others(
    bench: Bench, sweep: GuidanceSweep, sampling: Sampling, tmp_path: Path
) -> None:
    num_painted(bench, sweep, sampling, tmp_path)
    assert num_painted(bench, replace(sweep, compared=(1.0, 3.0)), sampling, tmp_path) == 5
    names = {folder.name for folder in (tmp_path / "results").iterdir() if folder.is_dir()}
    assert names == {"paint_by_example", "paint_by_example_guidance_1", "paint_by_example_guidance_3"}
