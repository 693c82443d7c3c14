"""How fast a run is: step time, images/s, and on a GPU its memory and MFU; one line every few steps.

Times are no part of the records, which are the same at each run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pbe.training.journal import Lines, read_lines
from pbe.training.painting_loss import Batch, PaintingLoss

EVERY = 10  # steps

# Dense bf16 TFLOP/s of the makers' data sheets; the first name that is in the device's name.
PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100": 989.0, "H20": 148.0, "A100": 312.0, "L40S": 362.0, "L40": 181.0,
    "L4": 121.0, "A10": 125.0, "RTX 5090": 209.0, "RTX 4090": 165.0, "RTX 3090": 71.0,
}  # fmt: skip


def peak_tflops(device_name: str) -> float | None:
    """What the device could do at most in bf16, or None for one that is not in the table."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)


def sample_flops(losses: PaintingLoss, batch: Batch) -> float:
    """Floating-point operations of one training sample: thrice the forward's, as the backward takes two of them."""
    one = batch.split(1)[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        losses(one)
    return 3.0 * float(counter.get_total_flops())


class Meter:
    """Writes a line of timings every few steps; `clock` tells seconds.

    What is done beside the steps is timed apart, by `aside`, and is no part of a step's time.
    """

    def __init__(self, path: Path, clock: Callable[[], float], global_batch: int, num_workers: int) -> None:
        self._lines = Lines(path, read_lines(path))
        self._clock, self._global_batch, self._num_workers = clock, global_batch, num_workers
        self._since: float | None = None  # the first step, in which everything warms up, is not counted
        self._steps, self._aside = 0, 0.0
        self._extra: dict[str, float] = {}
        self._flops: float | None = None
        self._peak: float | None = None
        self._gpu = False

    def close(self) -> None:
        self._lines.close()

    def measure_gpu(self, device: str, flops: float) -> None:
        """Tell the GPU's memory, too, and how much of the device's arithmetic `flops` a sample come to."""
        self._gpu, self._flops = True, flops
        self._peak = peak_tflops(torch.cuda.get_device_name(device))

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Time what happens inside the block as `<what>_s`."""
        began = self._clock()
        yield
        self._extra[f"{what}_s"] = self._clock() - began
        self._aside += self._extra[f"{what}_s"]

    def tick(self, step: int) -> None:
        """Called after each step."""
        if self._since is None:
            self._since, self._aside, self._extra = self._clock(), 0.0, {}
            return
        self._steps += 1
        if (step + 1) % EVERY and not self._extra:
            return
        now = self._clock()
        step_s = (now - self._since - self._aside) / self._steps
        self._lines.append({"step": step, **self._line(step_s), **self._extra})
        self._since, self._steps, self._aside, self._extra = now, 0, 0.0, {}

    def _line(self, step_s: float) -> dict[str, Any]:
        line = {"step_s": step_s, "images_per_s": self._global_batch / step_s}
        if self._gpu:
            line["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self._flops is not None:
            line["tflops_per_gpu"] = self._flops * line["images_per_s"] / self._num_workers / 1e12
            if self._peak is not None:
                line["mfu"] = line["tflops_per_gpu"] / self._peak
        return line
