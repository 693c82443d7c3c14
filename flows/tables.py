"""The paper's tables, repeated on the demo world: `python -m flows.tables`, after `python -m flows.pipeline bench`.

Trains the models of the ablation with three seeds, paints the project's bench with each, scores all pictures, and
writes reports/tables.json, reports/tables.md and reports/tables.png. Each model is a run in MLflow and an experiment of
DVC. Finished work is kept: a run that was killed resumes where it stopped.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows import server
from flows.encode import encode
from flows.evaluate import case_scorers, placement_of, sampling_of
from flows.experiments import record_experiment
from flows.inputs import require
from flows.progress import stage_progress
from flows.provenance import git_commit, tracking_uri
from flows.scores import main_scores
from flows.stage import errors_reported, failed_state, finish
from flows.train import make_job
from pbe import layout
from pbe.demo.tables import projects, training
from pbe.demo.tables.benches import write_irregular_bench
from pbe.demo.tables.content import Content, Tables, all_tables, model_means
from pbe.demo.tables.directions import source_at
from pbe.demo.tables.estimates import resample
from pbe.demo.tables.figure import write_figure
from pbe.demo.tables.markdown import markdown
from pbe.demo.tables.pictures import paint_set, sources_of
from pbe.demo.tables.plan import Plan, make_plan
from pbe.demo.tables.plot_files import write_plot_files
from pbe.demo.tables.projects import Project
from pbe.demo.tables.scores import BOX_BENCH, IRREGULAR_BENCH, Scores
from pbe.demo.tables.scoring import ScoredBench, score_pictures
from pbe.demo.tables.tracking import RUN_FILE, ModelRun, log_run
from pbe.errors import UserError, disk_errors_reported
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.metrics.frechet import Moments
from pbe.evaluation.painting import processes as painting
from pbe.runtime.child_processes import exit_with_parent
from pbe.runtime.files import read_json, write_json, write_text
from pbe.runtime.locks import hold_lock
from pbe.settings import load_settings

NAME = "tables"
SEEDS = (0, 1, 2)
GUIDANCE_SCALES = tuple(float(scale) for scale in range(1, 10))


@flow(name=NAME, persist_result=False)
def tables(
    seeds: Sequence[int] = SEEDS,
    scales: Sequence[float] = GUIDANCE_SCALES,
    sweep_cases: int = 96,
    num_workers: int = 2,
    steps: int | None = None,
) -> dict[str, Any] | State[Any]:
    """Repeat the paper's tables in the project in the working directory.

    `seeds` are those of training and painting; the world, the bench and the encoded samples are the project's. `scales`
    are the guidance scales of the full method. The ablation is painted on the whole bench, everything else on its first
    `sweep_cases` cases. `num_workers` processes train and paint, and `steps` takes the place of train.steps. Returns
    the content of tables.json, or a failed state for an error of the user.
    """
    root = Path()
    try:
        with disk_errors_reported(), hold_lock(layout.stage_lock(NAME), timeout_s=0.0):
            require(root, layout.CURATED / "boxes.parquet", layout.BACKBONE / "image_encoder", layout.BENCH)
            settings = load_settings(root / layout.PARAMS)
            plan = make_plan(root, settings, seeds, scales, sweep_cases, num_workers, steps)
            return run_plan(plan)
    except UserError as error:
        return failed_state(error)


def run_plan(plan: Plan) -> Content:
    """Train, paint, score and report; return the content of tables.json."""
    painting.prepare()  # before any other process is forked: all of them have the painter's code
    for project in plan.distinct_latents:
        encode_latents(project, plan.settings.seed, plan.num_workers)
    train_models(plan)
    benches = open_benches(plan)
    paint_models(plan, benches)
    scores, real = score(plan, benches)
    content = facts(plan, scores) | compute_tables(plan, scores, real)
    write_tables(plan.root, content)
    record_models(plan, scores)
    return content


@task(task_run_name="encode for {project.name}", cache_policy=NO_CACHE)
def encode_latents(project: Project, seed: int, num_workers: int) -> None:
    """Encode the latents that a project trains on, unless that is done."""
    folder = projects.latents_project(project)
    done = folder / "encoded.json"
    if done.is_file():
        return
    settings = project.settings.replace(seed=seed, encode=project.settings.encode.replace(num_workers=num_workers))
    write_json(done, dict(encode(settings, folder, stage_progress(f"{NAME}, encode for {project.name}"))))


@task(cache_policy=NO_CACHE)
def train_models(plan: Plan) -> None:
    """Train the models that are not trained yet, each in a process of one thread."""
    bar, waiting = stage_progress(NAME)("models trained"), {}
    with worker_pool(plan.num_workers) as pool:
        for project in plan.projects:
            job = make_job(project.settings, project.folder)
            model, record = project.folder / layout.MODEL, project.folder / training.TRAINED
            if not training.is_trained(job, model, record):
                waiting[pool.submit(training.train_model, job, model, record)] = project.name
        done, total = len(plan.projects) - len(waiting), len(plan.projects)
        bar(done, total)
        for future in as_completed(waiting):
            future.result()
            done += 1
            bar(done, total, waiting[future])


def open_benches(plan: Plan) -> dict[str, Bench]:
    """Return the project's bench, and its first cases with irregular masks."""
    bench = read_bench(plan.root / layout.BENCH)
    irregular = plan.root / projects.FOLDER / "irregular-bench"
    write_irregular_bench(bench.head(plan.first_cases), irregular, plan.settings.method.mask, plan.settings.seed)
    return {BOX_BENCH: bench, IRREGULAR_BENCH: read_bench(irregular)}


@task(cache_policy=NO_CACHE)
def paint_models(plan: Plan, benches: dict[str, Bench]) -> None:
    """Paint what is missing of all pictures."""
    options = plan.settings.evaluate
    placement = placement_of(options.replace(num_workers=plan.num_workers))
    for pictures in plan.picture_sets:
        sampling = replace(sampling_of(plan.settings), seed=pictures.seed)
        bar = stage_progress(NAME)(f"cases painted, {pictures.name}")
        paint_set(pictures, benches, plan.num_cases, sampling, placement, bar)


@task(cache_policy=NO_CACHE)
def score(plan: Plan, benches: dict[str, Bench]) -> tuple[Scores, Moments]:
    """Score all pictures, and return with them the moments of the real images' features."""
    from pbe.evaluation.scorers.paper import ClipScorer
    from pbe.evaluation.scoring.opened_protocols import open_measured_protocols

    device, bar, root, options = torch.device("cpu"), stage_progress(NAME), plan.root, plan.settings.evaluate
    (measured,) = open_measured_protocols(
        "corrected",
        plan.projects[0].folder / layout.MODEL / "image_encoder",  # the tower is frozen: all models have the same
        root / options.real,
        root / layout.RAW,
        benches[BOX_BENCH],
        limit=options.max_real_images,
        seed=plan.settings.seed,
        cache=root / projects.FOLDER,
        device=device,
        progress=bar("real images encoded"),
    )
    scored = []
    for name, bench in benches.items():
        scorers = [ClipScorer(measured.protocol), *case_scorers(options, root, bench, device)]
        scored.append(ScoredBench(name, bench, scorers, root / projects.FOLDER / "scores" / name))
    bars = {name: bar(f"results scored, {name} masks") for name in benches}
    scores = score_pictures(plan.picture_sets, scored, plan.num_cases, measured.protocol.features, bars)
    return scores, measured.reference.moments


def compute_tables(plan: Plan, scores: Scores, real: Moments) -> Content:
    """Return the tables with their intervals."""
    options = plan.settings.evaluate

    def on(number: int) -> Tables:
        draws = resample(len(plan.seeds), number, options.bootstrap_draws, options.confidence, plan.settings.seed)
        return Tables(scores.head(number), real, draws, plan.scale)

    return all_tables(on(plan.bench_cases), on(plan.first_cases), plan.scales)


def facts(plan: Plan, scores: Scores) -> Content:
    """Return what the numbers depend on."""
    options, train = plan.settings.evaluate, plan.settings.train
    return {
        "seeds": list(plan.seeds),
        "num_cases": plan.bench_cases,
        "first_cases": plan.first_cases,
        "num_pictures": scores.cases.height,
        "steps": train.steps,
        "batch_size": train.batch_size,
        "guidance_scale": plan.scale,
        "sampler": options.sampler,
        "num_steps": options.num_steps,
        "guidance_interval": options.guidance_interval and list(options.guidance_interval),
        "confidence": options.confidence,
        "git_commit": git_commit(plan.root),
    }


def write_tables(root: Path, content: Content) -> None:
    """Write the tables as JSON, Markdown, a figure and CSV files, and as an artifact of the flow run."""
    text = markdown(content)
    write_json(root / layout.TABLES, content)
    write_text(root / layout.TABLES.with_suffix(".md"), text)
    write_figure(root / layout.TABLES.with_suffix(".png"), content)
    write_plot_files(root / layout.REPORTS, content)
    create_markdown_artifact(text, key=NAME)


@task(cache_policy=NO_CACHE)
def record_models(plan: Plan, scores: Scores) -> None:
    """Log each model as a run in MLflow and as an experiment of DVC."""
    uri, commit = tracking_uri(plan.root), git_commit(plan.root)
    for project in plan.projects:
        run = model_run(plan, project, scores, {"git_commit": commit} if commit else {})
        log_run(uri, project.folder / RUN_FILE, run)
        changes = {"seed": project.settings.seed, "train.steps": project.settings.train.steps}
        name = f"{NAME}-{project.name.replace('_', '-')}"
        record_experiment(plan.root, name, dict(project.variant.changes) | changes, main_scores(run.scores))


def model_run(plan: Plan, project: Project, scores: Scores, tags: dict[str, str]) -> ModelRun:
    """Return what MLflow records of a model."""
    seed, variant = project.settings.seed, project.variant
    sources = [source for source in sources_of(variant, plan.scale, plan.scales) if source.bench == BOX_BENCH]
    losses = [step["loss"] for step in read_json(project.folder / training.TRAINED)["steps"]]
    return ModelRun(
        name=project.name,
        parameters={key: str(value) for key, value in variant.changes.items()} | {"seed": str(seed)},
        tags=tags | {"variant": variant.name, "title": variant.title},
        curves={"loss": losses},
        scores=model_means(scores, source_at(plan.scale, variant), seed),
        by_scale={source.guidance: model_means(scores, source, seed) for source in sources},
    )


@contextmanager
def worker_pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes of one thread each that end with this one; work that has not begun is dropped on an error."""
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with_parent(parent.join)


def main(arguments: list[str] | None = None) -> None:
    """Run the flow in the project in the working directory; exit with 2 for a user's error, with 1 for a bug."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    with errors_reported(NAME):
        load_settings(layout.PARAMS)
        with server.available():
            state = tables(**vars(options), return_state=True)
        finish(NAME, state)
    print(f"{NAME}: done in {(time.monotonic() - started) / 60:.0f} minutes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.tables", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: %(default)s")
    parser.add_argument("--scales", type=float, nargs="+", default=list(GUIDANCE_SCALES), help="default: %(default)s")
    parser.add_argument("--sweep-cases", type=int, default=96, help="outside the ablation (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of training; default: train.steps")
    return parser


if __name__ == "__main__":
    main()
