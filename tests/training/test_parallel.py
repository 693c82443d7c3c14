"""Several processes over gloo: strategies, numbers of workers and accumulation give the losses of one worker.

Sums of 1, 2 or 4 parts differ in fp32's rounding, 6e-8, which a few steps enlarge: 1e-4 of a loss is far above it and
far below what a wrong share of a gradient changes. bf16 rounds to 2e-3 of a value, but many values share a loss.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pbe.errors import UserError
from pbe.method.initialization import build_painter
from pbe.training.painting_loss import PaintingLoss
from pbe.training.parallel import check_strategy
from tests.support import parameters
from tests.support.toy_project import ROOT
from tests.support.worker_group import SAVED_AT, STEPS, TIMEOUT_S

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def runs(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of all cases."""
    root = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "tests.support.worker_group", str(backbone), str(root)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def records(runs: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((runs / name / "records.json").read_text())
    assert len(found) == STEPS
    return found


def column(runs: Path, name: str, key: str) -> list[float]:
    return [record[key] for record in records(runs, name) if record[key] is not None]


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(runs / name / "weights.pt", weights_only=True)
    return found


@pytest.mark.parametrize("name", ["ddp", "fsdp", "ddp-4", "fsdp-4-from-ddp", "one-from-fsdp"])
def test_the_same_global_batch_gives_the_losses_of_one_worker(runs: Path, name: str) -> None:
    for key, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3), ("validation_loss", 1e-4)):
        assert column(runs, name, key) == pytest.approx(column(runs, "one", key), rel=tolerance), key
    for a, b in zip(weights(runs, name).values(), weights(runs, "one").values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)  # AdamW turns tiny gradients into whole steps of 2e-3


@pytest.mark.parametrize("name", ["one-bf16", "ddp-bf16", "fsdp-bf16"])
def test_bf16_is_close_to_fp32(runs: Path, name: str) -> None:
    losses = column(runs, name, "loss")
    assert losses == pytest.approx(column(runs, "one", "loss"), rel=2e-3)
    assert losses != column(runs, "one", "loss")
    assert all(tensor.dtype == torch.float32 for tensor in weights(runs, name).values())


@pytest.mark.parametrize(("resumed", "undisturbed"), [("fsdp-resumed", "fsdp"), ("ddp-4-resumed", "ddp-4")])
def test_a_resumed_run_ends_with_the_same_bits(runs: Path, resumed: str, undisturbed: str) -> None:
    assert records(runs, resumed) == records(runs, undisturbed)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(runs, resumed).values(), weights(runs, undisturbed).values(), strict=True)
    )


@pytest.mark.parametrize(("dtype", "size_bytes"), [("torch.float32", 4), ("torch.bfloat16", 2)])
def test_gradients_are_reduced_in_their_dtype_while_the_backward_pass_goes_on(
    runs: Path, backbone: Path, dtype: str, size_bytes: int
) -> None:
    measured = json.loads((runs / f"{dtype}.json").read_text())
    buckets = [int(size) for size in measured["rebuilt_bucket_sizes"].split(",")]
    assert len(buckets) >= 5
    num_gradients = sum(p.numel() for p in PaintingLoss(build_painter(backbone, 64, 0)).trained().values())
    assert sum(buckets) == size_bytes * num_gradients
    overlap_ns, reducing_ns = (int(measured[f"backward_{name}_time"]) for name in ("compute_comm_overlap", "comm"))
    assert overlap_ns > 0.2 * reducing_ns  # here 0.98; a machine may be busy


def test_the_killed_run_had_not_finished(runs: Path) -> None:
    assert (runs / "fsdp-killed" / f"step-{SAVED_AT:08d}").is_dir()
    assert not (runs / "fsdp-killed" / "records.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"optimizer": "adamw8bit"}, "train.optimizer adamw"), ({"lora_rank": 4}, "train.lora_rank")],
)
def test_what_fsdp_cannot_combine_is_one_line(changes: dict[str, Any], message: str) -> None:
    check_strategy(parameters.train(strategy="ddp", **changes))
    with pytest.raises(UserError, match=message):
        check_strategy(parameters.train(strategy="fsdp", **changes))
