"""The architecture of a painter, without its weights: of a given painter, or of the authors', whose file omits it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler
from transformers import CLIPVisionConfig

from pbe.method.conditioner import Conditioner
from pbe.method.denoiser import MaskChannel
from pbe.method.painter import Painter
from pbe.method.unet import UNet


@dataclass(frozen=True)
class Architecture:
    """The configurations of the parts, as diffusers and transformers write them."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    tower: dict[str, Any]
    scheduler: dict[str, Any]
    context_dim: int
    image_px: int

    def to_json(self) -> str:
        """Return the fields as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)


def architecture_of(painter: Painter) -> Architecture:
    """Return the architecture of a painter."""
    vae, scheduler = (_configuration(json.loads(part.to_json_string())) for part in (painter.vae, painter.scheduler))
    tower = _configuration(painter.conditioner.config.to_dict())
    return Architecture(painter.unet.config, vae, tower, scheduler, painter.conditioner.context_dim, painter.image_px)


def _configuration(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the path that it was loaded from and the library's version."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def empty_painter(architecture: Architecture, mask_channel: MaskChannel = "keep") -> Painter:
    """Return a painter with weights on the meta device: they have no storage until a state is assigned."""
    with torch.device("meta"):
        unet = UNet(architecture.unet)
        vae = AutoencoderKL.from_config(architecture.vae)
        conditioner = Conditioner(CLIPVisionConfig.from_dict(architecture.tower), architecture.context_dim)
    positions = conditioner.model.embeddings.position_ids  # a constant, which no file holds
    conditioner.model.embeddings.register_buffer(
        "position_ids", torch.arange(positions.shape[-1])[None], persistent=False
    )
    scheduler = PNDMScheduler.from_config(architecture.scheduler)
    return Painter(unet, vae, conditioner, scheduler, architecture.image_px, mask_channel).eval()


AUTHORS = Architecture(  # Stable Diffusion v1 with nine input channels, CLIP ViT-L/14
    unet={
        "sample_size": 64,
        "in_channels": 9,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae={
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
    },
    tower={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 768,
    },
    scheduler={
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    context_dim=768,
    image_px=512,
)
