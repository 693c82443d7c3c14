"""The pretrained parts that training starts from, in diffusers' layout."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPVisionModelWithProjection

from pbe.method.conditioner import Conditioner

PARTS = ("unet", "vae", "scheduler", "image_encoder", "text_encoder", "tokenizer")


def check_backbone(folder: Path) -> None:
    """Raise ValueError naming the first part of the backbone that the folder lacks."""
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ValueError(f"{folder}: the backbone lacks its part {part}/; it needs {', '.join(PARTS)}")


def load_conditioner(folder: Path, context_dim: int) -> Conditioner:
    """A conditioner around the backbone's CLIP image tower; mapper, projection and v are new."""
    tower = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    conditioner = Conditioner(tower.config, context_dim)
    conditioner.model.load_state_dict(tower.vision_model.state_dict())
    return conditioner.eval()


def load_vae(folder: Path) -> AutoencoderKL:
    return (
        AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
        .requires_grad_(False)
        .eval()
    )


def write_backbone_card(folder: Path, origin: dict[str, str]) -> None:
    """Record where the parts came from in `backbone.json`."""
    (folder / "backbone.json").write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n")
