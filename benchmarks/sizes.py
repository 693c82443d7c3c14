"""Models of a given size with random weights, and clocks, for the benchmarks."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import CLIPVisionConfig

from pbe.demo.weights.prior import SCHEDULE
from pbe.method.conditioner import Conditioner
from pbe.method.painter import Painter
from pbe.method.unet import UNet
from pbe.training.painting_loss import Batch

SIZES: dict[str, dict[str, Any]] = {
    "sd": {"channels": (320, 640, 1280, 1280), "layers": 2, "heads": 8, "context": 768, "groups": 32},
    "tiny": {"channels": (32, 64), "layers": 1, "heads": 2, "context": 32, "groups": 8},
}


def random_unet(size: str, in_channels: int = 9) -> UNet:
    """Return Stable Diffusion 1's UNet with the paper's nine input channels (860 M), or a tiny one of the same kind."""
    chosen = SIZES[size]
    levels = len(chosen["channels"])
    config = {
        "sample_size": 64,
        "in_channels": in_channels,
        "block_out_channels": chosen["channels"],
        "down_block_types": ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
        "layers_per_block": chosen["layers"],
        "cross_attention_dim": chosen["context"],
        "attention_head_dim": chosen["heads"],  # diffusers' name for the number of heads
        "norm_num_groups": chosen["groups"],
    }
    torch.manual_seed(0)
    with fast_initialisation():
        return UNet(config)


def stock_unet(unet: UNet) -> UNet2DConditionModel:
    """Return diffusers' UNet with the same weights; it shares their memory."""
    with torch.device("meta"):
        stock = UNet2DConditionModel.from_config(unet.config)
    stock.load_state_dict(unet.state_dict(), assign=True)
    return stock.train(unet.training)


def random_vae(size: str) -> AutoencoderKL:
    channels = (128, 256, 512, 512) if size == "sd" else (16, 16, 16, 16)
    with fast_initialisation():
        vae = AutoencoderKL(
            block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2 if size == "sd" else 1, latent_channels=4,
            norm_num_groups=32 if size == "sd" else 8,
        )  # fmt: skip
    return vae.eval().requires_grad_(False)


def random_conditioner(size: str) -> Conditioner:
    """Return CLIP ViT-L/14 with mapper and projection, or a tiny one."""
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
             "image_size": 224, "patch_size": 14}  # fmt: skip
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 5,
             "image_size": 32, "patch_size": 8}  # fmt: skip
    with fast_initialisation():
        return Conditioner(CLIPVisionConfig(**(large if size == "sd" else small)), SIZES[size]["context"])


def random_painter(size: str, image_px: int) -> Painter:
    """Return a painter of the size, with the tiny backbone's noise schedule."""
    scheduler = PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1)
    return Painter(random_unet(size), random_vae(size), random_conditioner(size), scheduler, image_px)


def random_batch(painter: Painter, size: int, image_px: int) -> Batch:
    """Return a random batch of cached encodings and the draws of one step."""
    generator = torch.Generator().manual_seed(0)
    side = image_px // painter.latent_factor
    source, masked, noise = torch.randn(3, size, 4, side, side, generator=generator)
    mask = (torch.rand(size, 1, side, side, generator=generator) < 0.3).float()
    tokens = torch.randn(size, 1, painter.conditioner.config.hidden_size, generator=generator)
    timesteps = torch.randint(0, 1000, (size,), generator=generator)
    return Batch(source, masked, mask, tokens, noise, timesteps, torch.rand(size, generator=generator) < 0.2)


class fast_initialisation:  # noqa: N801
    """Replace the slow initialisation of every layer by uniform weights of the usual size."""

    def __enter__(self) -> None:
        self.kept = nn.init.kaiming_uniform_
        nn.init.kaiming_uniform_ = lambda t, *a, **k: t.data.uniform_(-1, 1).mul_(t[0].numel() ** -0.5)  # type: ignore

    def __exit__(self, *_: object) -> None:
        nn.init.kaiming_uniform_ = self.kept


def flops(work: Callable[[], object]) -> float:
    """Return the work's floating-point operations by torch's counter, including attention on a CPU."""
    aten = torch.ops.aten
    on_cpu = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda out, q, k, v, *_, **__: sdpa_backward_flop_count(out, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        work()
    return float(counter.get_total_flops())


def clock() -> float:
    """Return the time in seconds; with one thread CPU time, which other processes disturb less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that the work takes, by `clock`."""
    start = clock()
    work()
    return clock() - start


def medians_s(variants: dict[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, float]:
    """Return the median seconds of each variant, called alternately, after one warm-up call each if `warm`."""
    if warm:
        for work in variants.values():
            work()
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, work in variants.items():
            measured[name].append(seconds(work))
    return {name: statistics.median(times) for name, times in measured.items()}


def machine() -> str:
    """Return the processor's name, the number of threads, its instruction set and torch's version."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = named[0] if named else name
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name}, {torch.get_num_threads()} thread(s), {capability}, torch {torch.__version__}"
