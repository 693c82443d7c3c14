"""Random models of the tiny architectures, as small as the code allows: a backbone on disk in a second."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from pbe.demo.weights.clip import build_tokenizer
from pbe.demo.weights.prior import SCHEDULE
from pbe.method.unet import UNet

WIDTH = 16


def tiny_unet(
    in_channels: int = 4, down_block_types: tuple[str, ...] = ("DownBlock2D", "CrossAttnDownBlock2D")
) -> UNet:
    config = {
        "sample_size": 16,
        "in_channels": in_channels,
        "block_out_channels": [8, 16],
        "down_block_types": down_block_types,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet(config)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )


def tiny_tower_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2, num_hidden_layers=4, image_size=32,
        patch_size=16, projection_dim=WIDTH,
    )  # fmt: skip


def write_backbone(folder: Path) -> Path:
    """Write a complete backbone with random weights, the same at each call."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    tiny_unet().save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(tiny_tower_config()).save_pretrained(folder / "image_encoder")
    eos = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1,
        max_position_embeddings=12, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=eos,
        pad_token_id=eos,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1).save_pretrained(folder / "scheduler")
    return folder
