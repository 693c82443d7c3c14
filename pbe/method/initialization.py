"""The painter before its first step, made of the backbone's parts."""

from pathlib import Path

import torch
from diffusers import PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.method.backbone import check_backbone
from pbe.method.conditioner import Conditioner
from pbe.method.denoiser import widen_input
from pbe.method.painter import Painter
from pbe.method.pretrained import load_vae


@torch.no_grad()
def empty_context(folder: Path) -> torch.Tensor:
    """The prior's state for the empty caption's end token, (1, 1, D): what it draws from when told nothing."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_tower = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokens = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    states = text_tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return torch.as_tensor(states.pooler_output[:, None])


def build_painter(folder: Path, image_px: int, seed: int) -> Painter:
    """The painter at step 0: the prior widened by zero-initialised channels, v set to the prior's empty caption.

    `seed` decides the mapper's new weights. Raises ValueError when the backbone lacks a part.
    """
    check_backbone(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
        conditioner = Conditioner.from_tower(folder / "image_encoder", int(unet.config.cross_attention_dim))
        if unet.config.in_channels == 4:
            widen_input(unet)
    with torch.no_grad():
        conditioner.uncond_vector.copy_(empty_context(folder))
    scheduler = PNDMScheduler.from_pretrained(folder / "scheduler")
    return Painter(unet, load_vae(folder), conditioner, scheduler, image_px).eval()
