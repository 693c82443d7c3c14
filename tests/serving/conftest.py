"""A painter with random weights, small enough to build in a test, images for it, and an empty registry."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler
from PIL import Image as PILImage
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


@pytest.fixture(scope="session")
def painter() -> Painter:
    return build_painter(0)


@pytest.fixture(scope="session")
def model_folder(painter: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pbe"
    painter.save_pretrained(folder)
    return folder


@pytest.fixture
def model_without_guidance(tmp_path: Path) -> Path:
    folder = tmp_path / "without guidance"
    build_painter(0, guidance=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables; creating them takes seconds, so it is created once."""
    database = tmp_path_factory.mktemp("registry") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with source s.png (48 x 40), mask m.png and exemplar e.jpg (20 x 30)."""
    rng = np.random.default_rng(0)
    PILImage.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / "s.png")
    PILImage.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(tmp_path / "e.jpg")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:25, 8:30] = 255
    PILImage.fromarray(mask).save(tmp_path / "m.png")
    return tmp_path
