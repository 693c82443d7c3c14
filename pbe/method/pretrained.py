"""The frozen VAE of a backbone, loaded."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL


def load_vae(folder: Path) -> AutoencoderKL:
    return (
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
        .requires_grad_(False)
        .eval()
    )
