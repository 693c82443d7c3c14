"""A painter of random weights, 32 px, which is built in a moment and paints in milliseconds."""

import torch
from diffusers import AutoencoderKL, PNDMScheduler
from transformers import CLIPVisionConfig

from pbe.method.conditioner import Conditioner
from pbe.method.painter import Painter
from pbe.method.unet import UNet


def build_painter(seed: int, *, guidance: bool = True) -> Painter:
    torch.manual_seed(seed)
    config = {
        "in_channels": 9,
        "sample_size": 8,
        "block_out_channels": [8],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    unet = UNet(config)
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        latent_channels=4,
    )
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=8
    )
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True)
    return Painter(unet, vae, Conditioner(tower, 16, guidance=guidance), scheduler, image_px=32).eval()
