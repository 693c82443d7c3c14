"""Painting a bench in worker processes: results, resuming, and seeds."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pbe.dataset.images import read_image
from pbe.evaluation.bench import Bench, Case, read_bench, result_path, write_case, write_image
from pbe.evaluation.painting import PaintJob, Placement, Sampling, case_seed, paint_batch, paint_cases
from tests.support.toy_project import ROOT, running, wait_for

QUICK = Sampling(num_steps=2, max_magnification=2.0, batch_size=4, seed=0)
ON_TWO = Placement(("cpu",), num_workers=2, precision="fp32")


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from pbe.evaluation import painting

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=painting._context(), initializer=painting._start_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def results(job: PaintJob) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(job.folder.iterdir())}


def test_workers_paint_what_one_process_paints(model_folder: Path, bench: Bench, tmp_path: Path) -> None:
    """Two processes write the same bytes as this process does batch by batch, on one thread as the workers."""
    jobs = [PaintJob(5.0, 12, tmp_path / "five"), PaintJob(1.0, 5, tmp_path / "one")]
    alone = PaintJob(5.0, 12, tmp_path / "alone")
    alone.folder.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for start in (0, 4, 8):
        paint_batch(model_folder, bench, bench.ids[start : start + 4], alone, QUICK)
    torch.set_num_threads(threads)
    seen: list[tuple[int, int]] = []
    paint_cases(
        model_folder, bench, jobs, sampling=QUICK, placement=ON_TWO,
        progress=lambda done, total, note="": seen.append((done, total)),
    )  # fmt: skip
    assert results(jobs[0]) == results(alone)
    assert len(results(jobs[1])) == 5
    assert [seen[0], seen[-1]] == [(0, 17), (17, 17)]
    for case_id in bench.ids:
        case, result = bench.case(case_id), read_image(result_path(jobs[0].folder, case_id))
        np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])


def test_devices_share_the_batches(model_folder: Path, bench: Bench, tmp_path: Path) -> None:
    """Two pools, as for two GPUs, write what one pool writes; in bf16 other pixels, and those outside the mask stay."""
    painted = []
    for name, num_devices, precision in (("one", 1, "bf16"), ("two", 2, "bf16"), ("fp32", 1, "fp32")):
        job, placement = PaintJob(5.0, 8, tmp_path / name), Placement(("cpu",) * num_devices, 1, precision)
        paint_cases(model_folder, bench, [job], sampling=QUICK, placement=placement)
        painted.append(results(job))
    assert painted[0] == painted[1]
    assert painted[0].keys() == painted[2].keys()
    assert painted[0] != painted[2]
    case, result = bench.case(bench.ids[0]), read_image(result_path(tmp_path / "one", bench.ids[0]))
    np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])


def test_existing_results_are_not_painted_again(bench: Bench, tmp_path: Path) -> None:
    job = PaintJob(5.0, 4, tmp_path)
    for case_id in bench.ids[:4]:
        write_image(result_path(tmp_path, case_id), np.zeros((2, 2, 3), np.uint8))
    seen: list[tuple[int, int]] = []
    paint_cases(
        Path("absent"), bench, [job], sampling=QUICK, placement=ON_TWO,
        progress=lambda done, total, note="": seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(4, 4)]


def test_guidance_and_seed_change_the_pixels(model_folder: Path, bench: Bench, tmp_path: Path) -> None:
    for name, guidance_scale, seed in (("a", 5.0, 0), ("b", 5.0, 1), ("c", 1.0, 0)):
        (tmp_path / name).mkdir()
        paint_batch(
            model_folder, bench, bench.ids[:1], PaintJob(guidance_scale, 1, tmp_path / name), replace(QUICK, seed=seed)
        )
    painted = {result_path(tmp_path / name, bench.ids[0]).read_bytes() for name in "abc"}
    assert len(painted) == 3


def test_every_case_has_its_own_seed() -> None:
    seeds = {case_seed(seed, case_id) for seed in range(3) for case_id in range(100)}
    assert len(seeds) == 300
    assert case_seed(0, 7) == case_seed(0, 7)


def test_results_have_the_sizes_of_their_sources(model_folder: Path, tmp_path: Path) -> None:
    for case_id, (height, width) in ((1, (32, 32)), (2, (41, 90))):
        picture, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        mask[4:20, 4:20] = 1
        write_case(tmp_path, Case(case_id, picture, mask, picture))
    np.save(tmp_path / "id_list.npy", np.array([1, 2]))
    paint_batch(model_folder, read_bench(tmp_path), (1, 2), PaintJob(5.0, 2, tmp_path), QUICK)
    assert [read_image(result_path(tmp_path, i)).shape for i in (1, 2)] == [(32, 32, 3), (41, 90, 3)]


def test_the_magnification_of_small_masks_changes_the_pixels(model_folder: Path, bench: Bench, tmp_path: Path) -> None:
    painted = set()
    for magnification in (1.0, 2.0):
        job = PaintJob(5.0, 1, tmp_path / f"{magnification:g}")
        job.folder.mkdir()
        paint_batch(model_folder, bench, bench.ids[:1], job, replace(QUICK, max_magnification=magnification))
        painted.add(result_path(job.folder, bench.ids[0]).read_bytes())
    assert len(painted) == 2


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


def test_cases_of_several_regions_and_of_one_are_painted_in_one_batch(
    model_folder: Path, bench: Bench, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    corners = {1: [(20, 20)], 2: [(20, 20), (150, 150)]}
    for case_id, places in corners.items():
        mask = np.zeros((200, 200), np.uint8)
        for y, x in places:
            mask[y : y + 30, x : x + 30] = 1
        source = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        write_case(tmp_path / "bench", Case(case_id, source, mask, source[:40, :40]))
    two = replace(bench, folder=tmp_path / "bench", ids=(1, 2))
    job = PaintJob(5.0, 2, tmp_path / "results")

    assert paint_batch(model_folder, two, [1, 2], job, QUICK) == 2
    for case_id, places in corners.items():
        case, result = two.case(case_id), read_image(result_path(job.folder, case_id))
        np.testing.assert_array_equal(result[case.mask == 0], case.source[case.mask == 0])
        for y, x in places:
            assert (result[y : y + 30, x : x + 30] != case.source[y : y + 30, x : x + 30]).any()
