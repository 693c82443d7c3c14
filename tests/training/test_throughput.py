"""Timings: steps alone are counted, and what is done beside them is told apart."""

import pytest
import torch
from torch import nn

from pbe.training.journal import read_lines
from pbe.training.painting_loss import Batch
from pbe.training.throughput import Meter, peak_tflops, sample_flops


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_line_every_ten_steps_without_the_first_and_without_what_is_beside(tmp_path):
    clock = Clock()
    meter = Meter(tmp_path / "timings.jsonl", clock, global_batch=16, num_workers=2)
    for step in range(20):
        clock.now += 99.0 if step == 0 else 0.5  # the first step warms up
        if step == 14:
            with meter.aside("validation"):
                clock.now += 30.0
        meter.tick(step)
    meter.close()
    lines = read_lines(tmp_path / "timings.jsonl")
    assert [line["step"] for line in lines] == [9, 14, 19]
    assert all(line["step_s"] == pytest.approx(0.5) for line in lines)
    assert all(line["images_per_s"] == pytest.approx(32.0) for line in lines)
    assert [line.get("validation_s") for line in lines] == [None, 30.0, None]


def test_lines_of_before_a_kill_stay_and_a_torn_one_goes(tmp_path):
    path = tmp_path / "timings.jsonl"
    path.write_text('{"step": 9}\n{"st')
    Meter(path, Clock(), 1, 1).close()
    assert path.read_text() == '{"step": 9}\n'


def test_a_samples_arithmetic_is_thrice_its_forwards():
    class Losses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, batch):
            return self.layer(batch.class_tokens).mean(1)

    batch = Batch(*[torch.zeros(3, 6)] * 7)
    assert sample_flops(Losses(), batch) == 3 * 2 * 6 * 5


def test_the_peak_of_a_device_is_its_own():
    assert peak_tflops("NVIDIA H200") == 989.0
    assert peak_tflops("NVIDIA L40S") == 362.0
    assert peak_tflops("NVIDIA L4") == 121.0
    assert peak_tflops("Abacus") is None
