"""Where a model runs and in which precision: `auto`, or what the user names.

Auto takes a GPU if there is one, and bf16 where the processor multiplies it faster than fp32: NVIDIA GPUs from Ampere
on, and CPUs with AMX or AVX512-BF16. Elsewhere bf16 is emulated and slow, and auto takes fp32.

`key` is the flag or the parameter that holds the value; error messages begin with it.
"""

import re

import torch

from pbe.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, key: str = "device") -> torch.device:
    """Return the device that `name` means: auto, cpu, cuda or cuda:n; raises UserError when it does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name, re.ASCII):
        raise UserError(f"{key} {name!r}: unknown; choose auto, cpu, cuda or cuda:1")
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= num_gpus:
        raise UserError(f"{key} {name!r}: this machine has {_count(num_gpus)}; choose auto or cpu")
    return torch.device(name)


def _count(num_gpus: int) -> str:
    if num_gpus == 0:
        return "no GPU that PyTorch can use"
    return "one GPU, cuda:0" if num_gpus == 1 else f"{num_gpus} GPUs, cuda:0 to cuda:{num_gpus - 1}"


def choose_devices(name: str, key: str = "device") -> list[torch.device]:
    """Return the devices to divide work among: every GPU for auto and cuda; otherwise what `choose_device` returns."""
    device = choose_device(name, key)
    if device.type == "cpu" or device.index is not None:
        return [device]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def choose_precision(name: str, device: torch.device, key: str = "precision") -> torch.dtype:
    """Return the dtype of the weights and activations on the device; `name` is auto, fp32, bf16 or fp16.

    Raises UserError for fp16 on a CPU, which has no fast instructions for it.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    if name not in DTYPES:
        raise UserError(f"{key} {name!r}: unknown; choose auto, {', '.join(DTYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise UserError(f"{key} 'fp16': needs a GPU; choose auto, bf16 or fp32")
    return DTYPES[name]


def precision_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype that `choose_precision` returned."""
    return next(name for name, each in DTYPES.items() if each == dtype)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device has instructions that multiply bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 may lack it
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
