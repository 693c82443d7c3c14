"""`pbe evaluate` and `pbe reference`: what they write, and what they report for each mistake."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image as PILImage
from transformers import CLIPVisionModelWithProjection

from pbe.evaluation.baselines import BASELINES, baseline_result
from pbe.evaluation.benches.bench import result_path, write_image
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.benches.case_checks import ACCEPTABLE
from pbe.serving.commands import evaluate as evaluate_cli
from pbe.serving.commands.main import main
from tests.support.benches import write_bench
from tests.support.tiny_models import tiny_tower_config

ROOT = Path(__file__).parents[3]
IDS = range(1, 7)
QUICK = ["--identity=none", "--draws=100", "--encoder=clip", "--real=real"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bench, results of two tools, an encoder and real images; the working directory."""
    bench = read_bench(write_bench(tmp_path / "bench", IDS))
    rng = np.random.default_rng(0)
    for case_id in IDS:
        case = bench.case(case_id)
        write_image(result_path(tmp_path / "results/ours", case_id), baseline_result("copy_paste", 0, case))
        noise = rng.integers(0, 256, case.source.shape, dtype=np.uint8)
        write_image(tmp_path / "results/other/results" / f"{case_id}.png", noise)
        write_image(tmp_path / "real" / f"{case_id}.png", noise[::-1])
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(tiny_tower_config()).save_pretrained(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*more: str) -> int:
    return main(["evaluate", "--bench=bench", "--results=results/ours", *QUICK, *more])


def metrics_of(work: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((work / "evaluation/metrics.json").read_text())
    return content


def test_the_commands_of_the_documentation_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "docs/evaluation.md").read_text().split("## Scoring results of another tool")[1].split("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    commands = [shlex.split(line) for line in block[1].splitlines()]
    assert [command[:2] for command in commands] == [["pbe", "reference"], ["pbe", "evaluate"]]
    for command in commands:
        command = [word.replace("64", "16") if word.isdecimal() else word for word in command]
        assert main([*command[1:], *(["--identity=none", "--draws=100"] if "evaluate" in command else [])]) == 0
    assert {path.name for path in (work / "evaluation").iterdir()} >= {
        "index.html", "gallery.png", "metrics.json", "case_scores.parquet", "comparison.json", "evaluation.json",
    }  # fmt: skip
    captured = capsys.readouterr()
    assert "real.safetensors: 6 images of 16 px" in captured.out
    assert [line.split()[0] for line in captured.out.splitlines()[-6:]] == [
        "FID", "ours", "other", "source", "copy_paste", "poisson",
    ]  # fmt: skip


def test_a_tools_copies_of_a_baseline_have_its_scores(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--results=noise=results/other", "--json") == 0
    metrics = metrics_of(work)
    assert json.loads(capsys.readouterr().out) == metrics
    rows = metrics["methods"]
    assert isinstance(rows, dict)
    assert list(rows) == ["ours", "noise", "source", "copy_paste", "poisson"]
    assert rows["copy_paste"]["clip_score"] == rows["ours"]["clip_score"] != rows["noise"]["clip_score"]
    assert rows["copy_paste"]["fid"] == rows["ours"]["fid"] != rows["noise"]["fid"]
    assert (rows["ours"]["unmasked_max_abs_diff"], rows["noise"]["unmasked_max_abs_diff"] > 200) == (0, True)
    scores = pl.read_parquet(work / "evaluation/case_scores.parquet")
    assert sorted(scores["method"].unique()) == sorted(rows)
    assert len(scores) == 5 * len(IDS)


def test_scored_again_the_numbers_are_the_same_bytes(work: Path) -> None:
    assert evaluate("--baseline=source") == 0
    first = (work / "evaluation/metrics.json").read_bytes()
    assert evaluate("--baseline=source") == 0
    assert (work / "evaluation/metrics.json").read_bytes() == first
    assert list(json.loads(first)["methods"]) == ["ours", "source"]


def test_damaged_results_are_refused_or_left_out_for_all_tools(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result_path(work / "results/ours", 2).write_bytes(b"not a picture")
    (work / "results/other/results/3.png").unlink()
    assert evaluate("--results=results/other") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "000000000002.png" in error
    assert "--damaged skip" in error
    assert not (work / "evaluation/metrics.json").exists()

    assert evaluate("--results=results/other", "--damaged=skip", "--baseline=none") == 0
    metrics = metrics_of(work)
    assert metrics["num_cases"] == 4
    assert metrics["bench"] == {"cases": 6, "usable": 4, "skipped": {"no_result": 2}}
    assert metrics["results"] == {
        "ours": {"cases": 6, "usable": 5, "skipped": {"unreadable": 1}},
        "other": {"cases": 6, "usable": 5, "skipped": {"missing": 1}, "notes": {"other_names": 5}},
    }


def test_results_of_another_size_are_resized_when_they_are_accepted(work: Path) -> None:
    for path in (work / "results/ours").iterdir():
        PILImage.open(path).resize((32, 32)).save(path)
    assert evaluate() == 2
    assert evaluate("--accept=wrong_size") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--results=absent"], "--results absent: no such folder"),
        (["--results=results/ours"], "the name 'ours' is taken; write --results NAME=results/ours"),
        (["--results=source=results/other"], "the name 'source' is taken"),
        (["--results=clip"], "clip: no result of the bench"),
        (["--bench=real"], "real: no bench in COCOEE's layout"),
        (["--encoder=absent"], "--encoder absent: does not exist"),
        (["--encoder=real"], "real: no CLIP model"),
        (["--real=absent"], "--real absent: does not exist"),
        (["--confidence=95"], "--confidence 95: must be above 0.5 and below 1"),
        (["--draws=0"], "argument --draws: '0' is not a positive whole number"),
        (["--device=cuda:99"], "--device 'cuda:99': this machine has"),
    ],
)
def test_a_mistake_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert evaluate(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1


def test_a_reference_needs_a_suffix_and_names_its_encoder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = ["reference", "--real=real", "--image-px=16", "--encoder=clip"]
    assert main([*make, "--out=real.npz"]) == 2
    assert "--out real.npz: must end in .safetensors" in capsys.readouterr().err
    assert main([*make, "--out=real.safetensors"]) == 0
    CLIPVisionModelWithProjection(tiny_tower_config()).save_pretrained(work / "another")
    assert evaluate("--real=real.safetensors", "--encoder=another") == 2
    assert "statistics of features of another encoder" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "reference"):
        assert main([command, "--help"]) == 0
        assert f"pbe {command} --" in capsys.readouterr().out


def test_the_choices_of_the_flags_are_those_of_the_evaluation() -> None:
    assert evaluate_cli.ACCEPTABLE == ACCEPTABLE
    assert tuple(BASELINES) == evaluate_cli.BASELINES
