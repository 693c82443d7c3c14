"""The rows of `gpu.py`: printed and saved as they come, beside the figures before, the peers and the card's peaks.

"Before" is this project at commit aaddaca on an H100. The peers are published: MLPerf Training's logs for Stable
Diffusion 2 (v4.1 on H100, v5.0 on H200, without an average of weights and without clipping), and for an edit diffusers'
compiled Stable Diffusion 1.5 on an A100, 50 steps in 1.06 s, here as 20 of these steps.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from sizes import machine

from pbe.training.throughput import peak_tflops

BEFORE = {
    ("train", "batch 8"): 43.2, ("train", "batch 16"): 59.6, ("train", "batch 32"): 78.2,
    ("train", "batch 64"): 78.2, ("images", "batch 64"): 29.4,  # at batch 32: 64 did not fit
    ("images", "batch 32"): 29.4, ("encode", "bf16, without drawing"): 40.7, ("encode", "bf16, with drawing"): 40.7,
    ("edit", "fp32, batch 1"): 1.48, ("edit", "bf16, batch 1"): 1.89, ("edit", "fp16, batch 1"): 1.58,
    ("edit", "fp32, batch 8"): 0.53, ("edit", "bf16, batch 8"): 0.31, ("edit", "fp16, batch 8"): 0.29,
}  # fmt: skip
MLPERF_H100 = {8: 135.7, 16: 135.7, 32: 135.7, 64: 144.9}  # at batch 32, and at batch 64
MLPERF_H200 = 144.5
COMPILED_DIFFUSERS_S = 1.06 * 20 / 50


@dataclass
class Peaks:
    """Operations and bytes per second of the device: by its data sheet, if listed, and measured."""

    device: str
    sheet_flops: float | None
    measured_flops: float
    measured_bytes: float

    def __str__(self) -> str:
        sheet = f"{self.sheet_flops / 1e12:,.0f} TFLOP/s bf16 by the data sheet, " if self.sheet_flops else ""
        return (
            f"{self.device}: {sheet}{self.measured_flops / 1e12:,.3g} TFLOP/s measured, "
            f"copies {self.measured_bytes / 1e12:.3g} TB/s read and written"
        )


@dataclass
class Report:
    """Rows that are printed at once and written to `out` after each, until `seconds` have passed."""

    out: Path | None
    seconds: float
    peaks: Peaks
    clock: Callable[[], float] = time.perf_counter
    start: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = self.clock() if self.start is None else self.start

    @property
    def elapsed_s(self) -> float:
        assert self.start is not None
        return self.clock() - self.start

    def fits(self, section: str, name: str, needed_s: float) -> bool:
        """Return whether about `needed_s` seconds are left; otherwise record that the row was skipped."""
        left_s = self.seconds - self.elapsed_s
        if needed_s <= left_s:
            return True
        self.skip(section, name, f"needs about {needed_s:.0f} s, {max(0, left_s):.0f} s are left")
        return False

    def heading(self, section: str, text: str) -> None:
        print(f"\n[{self.elapsed_s:4.0f} s] {section}: {text}", flush=True)

    def skip(self, section: str, name: str, reason: str) -> None:
        self._add({"section": section, "name": name, "skipped": reason}, f"not measured: {reason}")

    def check(self, name: str, value: float, limit: float, detail: str = "") -> None:
        """Record a check: it holds if the value is at most the limit."""
        holds = value <= limit
        text = f"{'holds' if holds else 'FAILS'}: {value:.2e}, at most {limit:.1e} {detail}"
        self._add({"section": "checks", "name": name, "value": value, "limit": limit, "holds": holds}, text)

    def rate(self, section: str, name: str, value: float, unit: str, flops: float, **more: Any) -> None:
        """Record a rate, where `flops` are the operations of one."""
        self._measure(section, name, value, unit, value * flops, value, more)

    def latency(self, section: str, name: str, value: float, flops: float, **more: Any) -> None:
        """Record seconds, where `flops` are the operations in them."""
        self._measure(section, name, value, "s", flops / value, 1 / value, more)

    def _measure(
        self, section: str, name: str, value: float, unit: str, flops: float, speed: float, more: dict[str, Any]
    ) -> None:
        row: dict[str, Any] = {"section": section, "name": name, "value": value, "unit": unit}
        row["measured_mfu"] = flops / self.peaks.measured_flops
        row["mfu"] = flops / self.peaks.sheet_flops if self.peaks.sheet_flops else None
        text = f"{value:9.3f} {unit:<10}"
        for what, other in (("before", self._before(section, name)), ("peer", self._peer(section, name))):
            if other is not None:
                row[what] = other
                row[f"times_{what}"] = speed / (1 / other if unit == "s" else other)
                text += f" {row[f'times_{what}']:5.2f} x {what} ({other:g})"
        sheet = f"{row['mfu']:.1%} of the data sheet, " if row["mfu"] else ""
        text += f"  {sheet}{row['measured_mfu']:.1%} of the measured peak"
        text += "".join(f"; {key} {number:.3g}" for key, number in more.items() if isinstance(number, float))
        self._add(row | more, text)

    def _before(self, section: str, name: str) -> float | None:
        section = "train" if section == "sweep" else section
        return BEFORE.get((section, name.removesuffix(", not compiled"))) if "NVIDIA" in self.peaks.device else None

    def _peer(self, section: str, name: str) -> float | None:
        section = "train" if section == "sweep" else section
        if section == "train" and "H200" in self.peaks.device:
            return MLPERF_H200
        if section == "train" and "H100" in self.peaks.device:
            return MLPERF_H100.get(int(name.split()[1].rstrip(",")))
        return (
            COMPILED_DIFFUSERS_S if section == "edit" and "NVIDIA" in self.peaks.device and "batch 1" in name else None
        )

    def _add(self, row: dict[str, Any], text: str) -> None:
        print(f"  {row['name']:<40}{text}", flush=True)
        self.rows.append(row | {"at_s": round(self.elapsed_s, 1)})
        if self.out:
            content = {"torch": torch.__version__, "peaks": asdict(self.peaks), "rows": self.rows}
            self.out.write_text(json.dumps(content, indent=1) + "\n")


def measure_peaks(device: str) -> Peaks:
    """Measure a bf16 product of 8192 x 8192 x 8192 random numbers, and a copy of 2 GiB; on a CPU less, in fp32."""
    on_gpu = device.startswith("cuda")
    side, dtype = (8192, torch.bfloat16) if on_gpu else (512, torch.float32)
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    source = torch.empty(2**31 if on_gpu else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product_s = timed_s(lambda: torch.matmul(a, b), 10, device)
    copy_s = timed_s(lambda: target.copy_(source), 10, device)
    name = torch.cuda.get_device_name() if on_gpu else machine()
    sheet = peak_tflops(name) if on_gpu else None
    return Peaks(name, sheet * 1e12 if sheet else None, 2 * side**3 / product_s, 2 * len(source) / copy_s)


def timed_s(work: Any, repeats: int, device: str, warm: int = 3) -> float:
    """Return the mean seconds of a call, after warm-up calls; waits for the GPU before and after."""
    for _ in range(warm):
        work()
    wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    wait(device)
    return (time.perf_counter() - start) / repeats


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
