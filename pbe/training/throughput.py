"""The throughput of a run: step time, images/s, and on a GPU its memory and MFU, as one line every few steps.

Times are not part of the step records, which are the same in every run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pbe.training.journal import JsonLines, read_lines
from pbe.training.loop import Trainer
from pbe.training.painting_loss import Batch, PaintingLoss

STEPS_PER_LINE = 10

# Dense bf16 TFLOP/s with float32 sums. The sources are NVIDIA's data sheets, most of which print twice the figure, with
# sparsity; for the A10G, which AWS alone has, AWS's. The first name that is part of the device's name counts.
PEAK_TFLOPS = {
    "GB200": 2500.0, "B200": 2250.0, "GH200": 989.0, "H200 NVL": 835.0, "H200": 989.0, "H100 PCIe": 756.0,
    "H100 NVL": 835.0, "H100": 989.0, "H20": 148.0, "A100": 312.0, "L40S": 362.0, "L40": 181.0, "L4": 121.0,
    "A10G": 70.0, "A10": 125.0, "RTX 5090": 209.5, "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip


def peak_tflops(device_name: str) -> float | None:
    """Return the dense bf16 peak of a device in TFLOP/s, or None for a device that PEAK_TFLOPS does not list."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)


def sample_flops(losses: PaintingLoss, batch: Batch) -> float:
    """Return the floating-point operations of one training sample: three times the forward pass's, as usual."""
    one = batch.split(1)[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        losses(one)
    return 3.0 * float(counter.get_total_flops())


class ThroughputLog:
    """Writes a line of timings every few steps; `clock` returns seconds.

    Work inside `excluded` is timed separately and is not part of a step's time.
    """

    def __init__(self, path: Path, clock: Callable[[], float], global_batch: int, num_workers: int) -> None:
        self._lines = JsonLines(path, read_lines(path))
        self._clock, self._global_batch, self._num_workers = clock, global_batch, num_workers
        self._since: float | None = None  # set by the first step, which is not counted: everything warms up in it
        self._steps, self._excluded_s = 0, 0.0
        self._extra: dict[str, float] = {}
        self._flops: float | None = None
        self._peak: float | None = None
        self._gpu = False

    def measure_gpu(self, device: str, flops: float) -> None:
        """Also log the GPU's memory and MFU, where `flops` are the floating-point operations of a sample."""
        self._gpu, self._flops = True, flops
        self._peak = peak_tflops(torch.cuda.get_device_name(device))

    @contextmanager
    def excluded(self, name: str) -> Iterator[None]:
        """Log the seconds of the block as `<name>_s`, and do not count them as a step's."""
        start = self._clock()
        yield
        self._extra[f"{name}_s"] = self._clock() - start
        self._excluded_s += self._extra[f"{name}_s"]

    def on_step(self, step: int) -> None:
        """Count a step; to be called after each."""
        if self._since is None:
            self._since, self._excluded_s, self._extra = self._clock(), 0.0, {}
            return
        self._steps += 1
        if (step + 1) % STEPS_PER_LINE and not self._extra:
            return
        now = self._clock()
        step_s = (now - self._since - self._excluded_s) / self._steps
        self._lines.append({"step": step, **self._rates(step_s), **self._extra})
        self._since, self._steps, self._excluded_s, self._extra = now, 0, 0.0, {}

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _rates(self, step_s: float) -> dict[str, float]:
        line = {"step_s": step_s, "images_per_s": self._global_batch / step_s}
        if self._gpu:
            line["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if self._flops is not None:
            line["tflops_per_gpu"] = self._flops * line["images_per_s"] / self._num_workers / 1e12
            if self._peak is not None:
                line["mfu"] = line["tflops_per_gpu"] / self._peak
        return line


def open_throughput_log(trainer: Trainer, samples: Batch, path: Path, clock: Callable[[], float]) -> ThroughputLog:
    """Return the log of a trainer's run; on a GPU, `samples` serve to count the operations of one."""
    log = ThroughputLog(path, clock, trainer.source.global_batch, trainer.train.num_workers)
    if trainer.train.use_gpu:
        place = trainer.losses.uncond_vector.device  # with fsdp the CPU
        log.measure_gpu(trainer.device, sample_flops(trainer.losses, samples.split(1)[0].to(place)))
    return log
