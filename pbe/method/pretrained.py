"""The VAE and the noise schedule of a backbone or a painter, loaded."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler


def load_vae(folder: Path) -> AutoencoderKL:
    return (
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
        .requires_grad_(False)
        .eval()
    )


def load_scheduler(folder: Path) -> PNDMScheduler:
    """The noise schedule; raises ValueError unless it is Stable Diffusion's and the model predicts the noise."""
    scheduler = PNDMScheduler.from_pretrained(folder)
    for key, wanted in (("beta_schedule", "scaled_linear"), ("prediction_type", "epsilon")):
        if scheduler.config[key] != wanted:
            raise ValueError(f"{folder}: {key} is {scheduler.config[key]}; only {wanted} can be painted with")
    return scheduler
