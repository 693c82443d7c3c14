"""The parts of the chaos suite; `make chaos` runs the suite itself."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.chaos.cases import FAULTS, PIPELINE, SIGNALS, Case, draw_cases, forgotten
from benchmarks.chaos.rooms import (
    BALLAST,
    SMALLEST,
    Ended,
    can_mount,
    compare,
    digests,
    fill,
    mount,
    remove,
    shorten,
)
from benchmarks.chaos.suite import CLUSTER, faults_of
from benchmarks.chaos.table import BEGIN, END, HEAD, NOT_POSSIBLE, PAGE, Row, summary, write_rows
from benchmarks.chaos.troubles import TROUBLES, Trouble, shift_times
from benchmarks.interruptions import STAGES
from benchmarks.small_project import ROOT, change_parameters
from pbe import layout
from pbe.settings import load_settings

LOCK = """
stages:
  train:
    cmd: train
    outs:
    - {path: models/pbe, md5: aa.dir}
    - {path: reports/train.json, md5: bb}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models/pbe/unet").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    (tmp_path / "models/pbe/unet/weights").write_bytes(b"weights")
    (tmp_path / "reports/train.json").write_text("{}")
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def test_a_seed_draws_every_signal_in_every_stage_and_every_fault() -> None:
    cases = draw_cases(3)
    assert cases == draw_cases(3) != draw_cases(4)
    expected = {(kind, stage) for kind in SIGNALS for stage in (*STAGES, PIPELINE)}
    assert {(case.kind, case.stage) for case in cases if case.kind in SIGNALS} == expected
    assert sorted(case.kind for case in cases if case.kind not in SIGNALS) == sorted(FAULTS)
    assert all(case.stage in FAULTS[case.kind] for case in cases if case.kind in FAULTS)
    assert set(TROUBLES) == set(FAULTS) - {CLUSTER}


def test_selected_cases_have_the_moments_of_the_whole_series() -> None:
    chosen = draw_cases(3, stages=["train"], kinds=["KILL", "INT"])
    assert {(case.kind, case.stage) for case in chosen} == {("KILL", "train"), ("INT", "train")}
    assert all(case in draw_cases(3) for case in chosen)


@pytest.mark.parametrize(("choice", "stages"), [(0.0, STAGES[:2]), (0.999, STAGES[-2:])])
def test_the_pipeline_runs_two_stages_that_follow_one_another(choice: float, stages: tuple[str, ...]) -> None:
    assert forgotten(Case("KILL", PIPELINE, 0.5, choice, False)) == stages
    assert forgotten(Case("KILL", "train", 0.5, choice, False)) == ("train",)


def test_digests_cover_each_file_of_an_output_and_dvcs_own(project: Path) -> None:
    before = digests(project)
    assert set(before) == {
        "dvc.lock: models/pbe", "dvc.lock: reports/train.json", "models/pbe/unet/weights", "reports/train.json"
    }  # fmt: skip
    (project / "models/pbe/unet/weights").write_bytes(b"other")
    assert compare(before, digests(project)) == ["models/pbe/unet/weights"]
    (project / "models/pbe/unet/more").touch()
    (project / "dvc.lock").write_text(LOCK.replace("bb", "cc"))
    (project / "reports/train.json").unlink()
    different = [
        "dvc.lock: reports/train.json",
        "models/pbe/unet/more",
        "models/pbe/unet/weights",
        "reports/train.json",
    ]
    assert compare(before, digests(project)) == different


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/opt/env/bin/python", "-m", "flows.train"], "flows.train"),
        (["/opt/env/bin/python", "/opt/env/bin/dvc", "repro"], "dvc"),
        (["/opt/env/bin/mongod", "--port", "1"], "mongod"),
        (["ray::RayTrainWorker.execute", "", ""], "ray::RayTrainWorker.execute"),
        (["/opt/env/bin/python3.11", "-c", "pass"], "python -c"),
        (["/opt/python", "-c", "from multiprocessing.spawn import f; f()", "--fork"], "a helper of multiprocessing"),
        ([], "a process without a command line"),
    ],
)
def test_a_process_has_a_short_name(words: list[str], name: str) -> None:
    assert shorten(words) == name


def test_a_command_that_fails_ends_with_its_message_and_without_a_traceback() -> None:
    ended = Ended(2, "train: 3/12\nerror: data/latents:  no space left\nERROR: failed to reproduce 'train'\n")
    assert ended.last_line() == "error: data/latents: no space left"
    assert faults_of(ended, Trouble()) == []
    bug = Ended(1, "Traceback (most recent call last):\n  ...\nKeyError: 'a'\n")
    assert faults_of(bug, Trouble()) == ["a traceback"]
    assert faults_of(bug, Trouble(one_line=False)) == []
    assert len(faults_of(Ended(124, ""), Trouble())) == 1


def test_rows_of_a_seed_replace_those_of_its_last_run(tmp_path: Path) -> None:
    page = tmp_path / "chaos.md"
    page.write_text(f"# Chaos\n\n{BEGIN}\n{END}\n\nMore.\n")
    good = Row("train: SIGKILL", "1.0 s", "a | b", 7.4, True)
    bad = Row("encode: SIGINT", "2.0 s", "ended", 9.0, False, ["mongod"], ["still running: mongod"])
    write_rows(page, [(2, bad), (2, good)])
    write_rows(page, [(1, good)])
    write_rows(page, [(2, good)])
    row = r"train: SIGKILL | 1.0 s | a \| b | 7 | yes | none |"
    assert page.read_text() == f"# Chaos\n\n{BEGIN}\n\n{HEAD}\n| 1 | {row}\n| 2 | {row}\n\n{END}\n\nMore.\n"
    assert bad.cells()[2:] == ["ended; **still running: mongod**", "9", "**no**", "mongod"]
    page.write_text("# Chaos\n")
    with pytest.raises(ValueError, match="expected the marks"):
        write_rows(page, [(1, good)])


def test_a_case_that_is_not_possible_is_counted_apart() -> None:
    rows = [Row("a", happened="completed"), Row("b", faults=["a traceback"]), Row("c", happened=NOT_POSSIBLE)]
    assert summary(rows) == "1 of 2 cases ended as they should, 1 were not possible here"


def test_the_small_project_has_valid_parameters(tmp_path: Path) -> None:
    params = tmp_path / layout.PARAMS
    params.write_text((ROOT / layout.PARAMS).read_text())
    change_parameters(params, SMALLEST)
    settings = load_settings(params)
    assert settings.train.steps == 12
    assert settings.bench.num_cases == 8


def test_a_jump_of_the_clock_moves_the_times_of_new_files(tmp_path: Path) -> None:
    for name, written_s in (("old", 1000.0), ("new", 3000.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (written_s, written_s))
    shift_times(tmp_path, 2000.0, 500.0)
    assert [(tmp_path / name).stat().st_mtime for name in ("old", "new")] == [1000.0, 3500.0]


def test_a_full_file_system_has_no_byte_left_until_the_ballast_is_gone(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("this user cannot mount a file system")
    mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path))
    try:
        fill(tmp_path)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "more").write_bytes(b"1")
        remove(tmp_path / BALLAST)
        (tmp_path / "more").write_bytes(b"1")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_page_has_the_table() -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == page.count(HEAD) == 1
