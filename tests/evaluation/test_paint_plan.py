"""Which cases are painted with which methods, guidance scales and seeds."""

from pathlib import Path

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.painting.plan import Diversity, GuidanceSweep, baseline_jobs, results_folder

OUT = Path("out")


def planned(sweep: GuidanceSweep, bench: Bench) -> list[tuple[float, int]]:
    return [(job.guidance_scale, job.num_cases) for job in sweep.jobs(bench, OUT)]


def test_all_cases_are_painted_at_the_evaluated_scale_and_at_1(bench: Bench) -> None:
    sweep = GuidanceSweep(scale=4.0, compared=(7.0, 1.0), num_cases=5)
    assert sweep.shown == [1.0, 4.0, 7.0]
    assert planned(sweep, bench) == [(4.0, 12), (1.0, 12), (7.0, 5)]


def test_the_sweep_paints_no_more_cases_than_the_bench_has(bench: Bench) -> None:
    assert planned(GuidanceSweep(4.0, (7.0,), 99), bench) == [(4.0, 12), (1.0, 12), (7.0, 12)]


def test_guidance_1_is_painted_once_when_it_is_the_evaluated_scale(bench: Bench) -> None:
    sweep = GuidanceSweep(1.0, (1.0,), 5)
    assert planned(sweep, bench) == [(1.0, 12)]
    assert results_folder(OUT, sweep, 1.0) == Path("out/results/paint_by_example")


def test_results_are_named_by_their_scale(sweep: GuidanceSweep) -> None:
    names = [sweep.method_name(scale) for scale in (5.0, 1.0, 7.5)]
    assert names == ["paint_by_example", "paint_by_example_guidance_1", "paint_by_example_guidance_7.5"]


def test_the_first_cases_are_painted_with_further_seeds(bench: Bench) -> None:
    jobs = Diversity(num_cases=3, num_seeds=3).jobs(5.0, bench, OUT)
    assert [(job.folder.name, job.draw, job.num_cases) for job in jobs] == [
        ("paint_by_example_seed_1", 1, 3),
        ("paint_by_example_seed_2", 2, 3),
    ]
    assert Diversity(0, 3).jobs(5.0, bench, OUT) == []
    assert {job.num_cases for job in Diversity(99, 3).jobs(5.0, bench, OUT)} == {12}


def test_baselines_without_a_model_are_not_painted(bench: Bench) -> None:
    jobs = baseline_jobs(["copy_paste", "stock", "poisson"], 5.0, bench, OUT)
    assert [(job.method, job.folder, job.num_cases) for job in jobs] == [("stock", Path("out/results/stock"), 12)]
