"""Timings count steps only; validation and checkpoints are timed separately."""

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from pbe.training.journal import read_lines
from pbe.training.painting_loss import Batch, PaintingLoss
from pbe.training.throughput import ThroughputLog, peak_tflops, sample_flops


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_leave_out_the_first_step_and_what_is_excluded(tmp_path: Path) -> None:
    clock = Clock()
    log = ThroughputLog(tmp_path / "timings.jsonl", clock, global_batch=16, num_workers=2)
    for step in range(20):
        clock.now += 99.0 if step == 0 else 0.5  # the first step warms up
        if step == 14:
            with log.excluded("validation"):
                clock.now += 30.0
        log.on_step(step)
    log.close()
    lines = read_lines(tmp_path / "timings.jsonl")
    assert [line["step"] for line in lines] == [9, 14, 19]
    assert all(line["step_s"] == pytest.approx(0.5) for line in lines)
    assert all(line["images_per_s"] == pytest.approx(32.0) for line in lines)
    assert [line.get("validation_s") for line in lines] == [None, 30.0, None]


def test_lines_from_before_a_kill_are_kept_and_an_incomplete_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    path.write_text('{"step": 9}\n{"st')
    ThroughputLog(path, Clock(), 1, 1).close()
    assert path.read_text() == '{"step": 9}\n'


def test_a_sample_takes_three_times_the_operations_of_its_forward_pass() -> None:
    class Losses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, batch: Batch) -> Tensor:
            return torch.as_tensor(self.layer(batch.class_tokens)).mean(1)

    batch = Batch(*[torch.zeros(3, 6)] * 7)
    assert sample_flops(cast(PaintingLoss, Losses()), batch) == 3 * 2 * 6 * 5


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("Abacus", None),
    ],
)
def test_a_device_has_the_peak_of_its_own_variant(device: str, peak: float | None) -> None:
    assert peak_tflops(device) == peak
