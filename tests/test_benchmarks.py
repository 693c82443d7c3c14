"""The one-GPU benchmark says on a machine without a GPU that it is ready, and writes its rows."""

import json
import runpy
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="minutes at full size")
def test_the_gpu_benchmark_runs_tiny_on_a_cpu(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(tmp_path / "rows.json")])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    assert "ready: no GPU here" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["mode"] for row in rows] == ["cached", "images"]
    assert all(row["images_per_s"] > 0 for row in rows)
    assert rows[1]["flops_per_image"] > rows[0]["flops_per_image"] > 0
