"""The one-GPU benchmark: on a machine without a GPU it runs at a tiny size and writes its rows."""

import json
import runpy
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
