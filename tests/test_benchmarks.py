"""Benchmarks that check as well: the one-GPU benchmark at a tiny size, and short fuzz runs. They run as commands."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes minutes at full size on a GPU")
def test_the_gpu_benchmark_runs_at_a_tiny_size_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path / "rows.json")])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    assert "no GPU: a tiny size ran on the CPU" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["mode"] for row in rows] == ["cached", "images"]
    assert all(row["images_per_s"] > 0 for row in rows)
    assert rows[1]["flops_per_image"] > rows[0]["flops_per_image"] > 0


def run_benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_damaged_set_of_own_data_is_imported_or_an_error_of_one_line_and_loses_no_image() -> None:
    output = run_benchmark("fuzz_readers.py", "--num", "100", "--seed", "1")
    assert re.findall(r"^(\w+): 10 sets", output, re.MULTILINE) == [
        "coco", "csv", "cvat", "datumaro", "huggingface", "label_studio", "labelme", "masks", "voc", "yolo",
    ]  # fmt: skip


def test_every_input_of_an_edit_is_edited_or_an_error_of_one_line() -> None:
    output = run_benchmark("fuzz_edit.py", "--num", "150", "--seed", "1")
    edited = re.search(r"^ *(\d+) edited$", output, re.MULTILINE)
    assert edited is not None
    assert 20 < int(edited[1]) < 130
