"""Painting a bench in worker processes: results, what is painted again, kills, and seeds."""

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pbe.dataset.images import read_image
from pbe.evaluation.benches.bench import Bench, Case, exemplar_path, result_path, write_case, write_image
from pbe.evaluation.painting import methods as painted_methods
from pbe.evaluation.painting.keys import write_painted
from pbe.evaluation.painting.methods import Models
from pbe.evaluation.painting.processes import (
    PaintJob,
    Placement,
    Sampling,
    case_seed,
    paint_cases,
    paint_settings,
    paint_task,
    plan_pictures,
)
from pbe.evaluation.painting.processes import Task as PaintTask
from pbe.types import Image
from tests.support.toy_project import ROOT, running, wait_for

QUICK = Sampling("plms", num_steps=2, guidance_interval=None, max_magnification=2.0, batch_size=4, seed=0)
ON_ONE, ON_TWO = (Placement(("cpu",), num_workers, "fp32") for num_workers in (1, 2))

POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from pbe.evaluation.painting import processes as painting

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=painting._context(), initializer=painting._start_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def models(model_folder: Path) -> Models:
    return Models(model_folder)


def results(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def paint(
    models: Models, bench: Bench, jobs: list[PaintJob], sampling: Sampling = QUICK, placement: Placement = ON_ONE
) -> int:
    """Paint in this process, as a worker does, and return the number of pictures that did not exist."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pbe.evaluation.painting.processes._pool", lambda num_workers: InProcess())
        paint_cases(
            models, bench, jobs, sampling=sampling, placement=placement,
            progress=lambda done, total, note="": seen.append(done),
        )  # fmt: skip
    return seen[-1] - seen[0]


class InProcess:
    """A pool that runs its tasks at once, on one thread as the workers do."""

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *error: object) -> None: ...

    def shutdown(self, **options: object) -> None: ...

    def submit(self, function, *arguments):  # type: ignore[no-untyped-def]
        from concurrent.futures import Future

        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        future: Future[object] = Future()
        future.set_result(function(*arguments))
        torch.set_num_threads(threads)
        return future


def test_workers_paint_what_one_process_paints(models: Models, bench: Bench, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for name, placement in (("alone", ON_ONE), ("two", ON_TWO)):
        jobs = [PaintJob(5.0, 12, tmp_path / name / "five"), PaintJob(1.0, 5, tmp_path / name / "one")]
        if placement == ON_ONE:
            paint(models, bench, jobs)
        else:
            paint_cases(
                models, bench, jobs, sampling=QUICK, placement=placement,
                progress=lambda done, total, note="": seen.append((done, total)),
            )  # fmt: skip
    assert results(tmp_path / "two") == results(tmp_path / "alone")
    assert [seen[0], seen[-1]] == [(0, 17), (17, 17)]
    for case_id in bench.ids:
        case, result = bench.case(case_id), read_image(result_path(tmp_path / "two/five", case_id))
        np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])


def test_devices_share_the_tasks(models: Models, bench: Bench, tmp_path: Path) -> None:
    """Two pools, as for two GPUs, paint what one pool paints; in bf16 other pixels, and those outside the mask stay."""
    for name, num_devices, precision in (("one", 1, "bf16"), ("two", 2, "bf16"), ("fp32", 1, "fp32")):
        paint(
            models,
            bench,
            [PaintJob(5.0, 12, tmp_path / name / "a")],
            QUICK,
            Placement(("cpu",) * num_devices, 1, precision),
        )
    assert results(tmp_path / "one") == results(tmp_path / "two")
    assert results(tmp_path / "one") != results(tmp_path / "fp32")
    case, result = bench.case(bench.ids[0]), read_image(result_path(tmp_path / "one" / "a", bench.ids[0]))
    np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])


def test_a_case_has_the_same_pixels_in_any_company(models: Models, bench: Bench, tmp_path: Path) -> None:
    """Numbers of cases and sizes of batches that give other tasks; the pictures and their keys are equal bytes."""
    paint(models, bench, [PaintJob(5.0, 12, tmp_path / "all" / "a")])
    expected = results(tmp_path / "all" / "a")
    for number, batch_size in ((1, 1), (3, 32), (9, 5)):
        folder = tmp_path / f"{number}"
        paint(models, bench, [PaintJob(5.0, number, folder / "a")], replace(QUICK, batch_size=batch_size))
        assert results(folder / "a") == dict(list(expected.items())[:number])


def test_only_what_decides_a_picture_paints_it_again(
    models: Models, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [PaintJob(5.0, 12, tmp_path / "five"), PaintJob(1.0, 4, tmp_path / "one")]
    assert paint(models, bench, jobs) == 16
    assert paint(models, bench, jobs, replace(QUICK, batch_size=32), ON_TWO) == 0
    more = [jobs[0], replace(jobs[1], num_cases=6)]
    assert paint(models, bench, more) == 2
    assert paint(models, bench, [*more, PaintJob(3.0, 2, tmp_path / "three")]) == 2
    assert paint(models, bench.head(6), [replace(jobs[0], num_cases=6), more[1]]) == 0
    assert len(results(tmp_path)) == 12  # those that are no longer asked for are removed
    for changed in (
        replace(QUICK, num_steps=3), replace(QUICK, max_magnification=1.0), replace(QUICK, seed=1)
    ):  # fmt: skip
        assert paint(models, bench, more, changed) == 18
    assert paint(models, bench, more, QUICK, Placement(("cpu",), 1, "bf16")) == 18
    monkeypatch.setattr(painted_methods, "digest_code", lambda *modules: "another")
    assert paint(models, bench, more) == 18


def test_a_changed_case_is_painted_again_alone(models: Models, bench: Bench, tmp_path: Path) -> None:
    for case_id in bench.ids:
        write_case(tmp_path / "bench", bench.case(case_id))
    copy, jobs = replace(bench, folder=tmp_path / "bench"), [PaintJob(5.0, 12, tmp_path / "results" / "a")]
    assert paint(models, bench, jobs) == 12
    assert paint(models, copy, jobs) == 0  # the same bytes in another folder
    write_image(exemplar_path(copy.folder, bench.ids[3]), np.zeros((9, 9, 3), np.uint8))
    assert paint(models, copy, jobs) == 1


def test_a_picture_without_a_key_is_painted_again(models: Models, bench: Bench, tmp_path: Path) -> None:
    job = PaintJob(5.0, 3, tmp_path / "a")
    paint(models, bench, [job])
    expected = results(tmp_path)
    write_image(result_path(job.folder, bench.ids[1]), np.zeros((2, 2, 3), np.uint8))
    result_path(job.folder, bench.ids[2]).write_bytes(b"")
    assert paint(models, bench, [job]) == 2
    assert results(tmp_path) == expected


def test_a_scale_that_becomes_the_evaluated_one_keeps_its_pictures(
    models: Models, bench: Bench, tmp_path: Path
) -> None:
    """The two scales change their folders, and nothing is painted but the cases that one of them lacked."""
    paint(models, bench, [PaintJob(5.0, 12, tmp_path / "main"), PaintJob(3.0, 4, tmp_path / "three")])
    before = results(tmp_path)
    assert paint(models, bench, [PaintJob(3.0, 12, tmp_path / "main"), PaintJob(5.0, 12, tmp_path / "five")]) == 8
    after = results(tmp_path)
    for name in (result_path(Path(), i).name for i in bench.ids[:4]):
        assert after[f"main/{name}"] == before[f"three/{name}"]
        assert after[f"five/{name}"] == before[f"main/{name}"]
    assert {path.name for path in tmp_path.iterdir()} == {"main", "five"}


class Killer:
    """Writes so many pictures, then half of one, and raises."""

    def __init__(self, num_pictures: int) -> None:
        self.left = num_pictures

    def __call__(self, path: Path, image: Image, key: str) -> None:
        if self.left:
            self.left -= 1
            return write_painted(path, image, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.stem}.part.png").write_bytes(b"half")
        raise InterruptedError


def test_interrupted_ten_times_it_paints_the_same_bytes(
    models: Models, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run ends at a random picture, before its file is renamed or after, and leaves what SIGKILL leaves."""
    whole, killed = (
        [PaintJob(5.0, 12, tmp_path / name / "five"), PaintJob(1.0, 12, tmp_path / name / "one", draw=1)]
        for name in ("whole", "killed")
    )
    paint(models, bench, whole)
    rng, left = random.Random(0), 24
    for _ in range(10):
        stop = rng.randrange(3)
        monkeypatch.setattr("pbe.evaluation.painting.processes.write_painted", Killer(stop))
        with pytest.raises(InterruptedError):
            paint(models, bench, killed)
        left -= stop
    monkeypatch.undo()
    assert paint(models, bench, killed) == left
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_guidance_seed_and_draw_change_the_pixels(models: Models, bench: Bench, tmp_path: Path) -> None:
    paint(models, bench, [PaintJob(5.0, 1, tmp_path / "a/a"), PaintJob(1.0, 1, tmp_path / "a/c")])
    paint(
        models,
        bench,
        [PaintJob(5.0, 1, tmp_path / "b/b"), PaintJob(5.0, 1, tmp_path / "b/d", draw=1)],
        replace(QUICK, seed=1),
    )
    painted = [read_image(path) for path in sorted(tmp_path.rglob("*.png"))]
    assert len({image.tobytes() for image in painted}) == 4


def test_every_case_and_draw_has_its_own_seed() -> None:
    seeds = {case_seed(seed, i, draw) for seed in range(3) for i in range(100) for draw in range(3)}
    assert len(seeds) == 900
    assert case_seed(0, 7) == case_seed(0, 7)


def test_results_have_the_sizes_of_their_sources(models: Models, bench: Bench, tmp_path: Path) -> None:
    for case_id, (height, width) in ((1, (32, 32)), (2, (41, 90))):
        picture, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        mask[4:20, 4:20] = 1
        write_case(tmp_path / "bench", Case(case_id, picture, mask, picture))
    paint(models, Bench(tmp_path / "bench", (1, 2)), [PaintJob(5.0, 2, tmp_path / "r/a")])
    assert [read_image(result_path(tmp_path / "r/a", i)).shape for i in (1, 2)] == [(32, 32, 3), (41, 90, 3)]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, str(tmp_path / "pool.py")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)})
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert running(worker)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_for(lambda: not running(worker))


def test_cases_of_several_regions_and_of_one_are_painted_in_one_task(
    models: Models, bench: Bench, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    corners = {1: [(20, 20)], 2: [(20, 20), (150, 150)]}
    for case_id, places in corners.items():
        mask = np.zeros((200, 200), np.uint8)
        for y, x in places:
            mask[y : y + 30, x : x + 30] = 1
        source = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        write_case(tmp_path / "bench", Case(case_id, source, mask, source[:40, :40]))
    two, job = Bench(tmp_path / "bench", (1, 2)), PaintJob(5.0, 2, tmp_path / "results/a")
    settings = paint_settings(QUICK, ON_ONE)
    pictures = plan_pictures(models, two, [job], 0, settings)[job]

    assert paint_task(models, two, PaintTask(job.method, 5.0, tuple(pictures)), settings) == 2
    for case_id, places in corners.items():
        case, result = two.case(case_id), read_image(result_path(job.folder, case_id))
        np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])
        for y, x in places:
            assert (result[y : y + 30, x : x + 30] != case.source[y : y + 30, x : x + 30]).any()
