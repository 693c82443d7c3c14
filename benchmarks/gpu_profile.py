"""The CUDA kernels of one training step by time, grouped by kind: where a step's time goes."""

import re
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {  # the first pattern found in a kernel's name is its kind
    "attention": r"sdpa|fmha|flash|attention|dot_do_o|convert_dq",
    "convolution": r"fprop|dgrad|wgrad|implicit|conv2d|convolution|winograd",
    "matrix": r"gemm|nvjet|cublas|cutlass|splitk|addmm|::mm|bmm|matmul|linear",
    "optimizer": r"adam|multi_tensor|foreach|lerp|master|clip",
    "norm": r"norm|welford|moments",
    "copy": r"memcpy|memset|copy|nchw|nhwc|transpose|::cat|catarray|contiguous|::clone|fill",
    "elementwise": r"triton_|elementwise|vectorized|reduce|silu|gelu|add|mul|sum|softmax|index",
}


def kind_of(name: str) -> str:
    """Return the kind of a kernel, or of a CPU operation, by its name."""
    lower = name.lower()
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, lower)), "other")


def kernel_times(work: Callable[[], object], on_gpu: bool) -> list[tuple[str, float, int]]:
    """Return (name, milliseconds, calls) of each kernel during the work, the longest first; on a CPU of operations."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        work()
        if on_gpu:
            torch.cuda.synchronize()
    wanted = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    rows = []
    for event in profiler.key_averages():
        if event.device_type != wanted or event.key.startswith("ProfilerStep"):
            continue
        took_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        rows.append((event.key, took_us / 1e3, event.count))
    return sorted(rows, key=lambda row: -row[1])


def print_profile(work: Callable[[], object], on_gpu: bool, top: int = 25) -> dict[str, float]:
    """Print the milliseconds of each kind and the longest kernels; return the milliseconds of each kind."""
    rows = kernel_times(work, on_gpu)
    kinds: dict[str, float] = defaultdict(float)
    for name, took_ms, _ in rows:
        kinds[kind_of(name)] += took_ms
    total = sum(kinds.values())
    parts = sorted(kinds.items(), key=lambda item: -item[1])
    print(f"  {total:.1f} ms: " + ", ".join(f"{kind} {took:.1f}" for kind, took in parts), flush=True)
    for name, took_ms, count in rows[:top]:
        print(f"  {took_ms:8.2f} ms {count:5} calls  {kind_of(name):<12} {name[:110]}", flush=True)
    return dict(kinds)
