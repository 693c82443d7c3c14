"""CLIP's image tower with its projection, from a local folder."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import CLIPVisionModelWithProjection

from pbe.errors import UserError, one_line
from pbe.evaluation.encoders.precision import exact_convolutions
from pbe.evaluation.encoders.protocol import Features
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD

_CPU = torch.device("cpu")


class ClipEncoder:
    """A CLIP image tower with its projection, from a local folder: ViT-B/32 for the paper's definition."""

    sees_tiles = False

    def __init__(self, folder: Path, device: torch.device = _CPU) -> None:
        self._model = _load_clip(folder)
        self._model.to(device)  # type: ignore[arg-type]
        config = self._model.config
        input_px, patch_px = config.image_size, config.patch_size
        assert isinstance(input_px, int)
        assert isinstance(patch_px, int)
        self.input_px = input_px
        self.name = f"CLIP {vit_name(config.hidden_size, config.num_hidden_layers, patch_px)} at {input_px} px"
        self._mean, self._std = _pixel_statistics(folder / "preprocessor_config.json")

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Features:
        pixels = torch.from_numpy(images).float().div(255)  # (B, H, W, 3)
        pixels = ((pixels - torch.tensor(self._mean)) / torch.tensor(self._std)).permute(0, 3, 1, 2)
        with exact_convolutions():
            embeds: torch.Tensor = self._model(pixel_values=pixels.contiguous().to(self._model.device)).image_embeds
        return embeds.float().cpu().numpy()


def vit_name(width: int, layers: int, patch_px: int) -> str:
    known = {(768, 12): "B", (1024, 24): "L", (1280, 32): "H"}
    letter = known.get((width, layers))
    return f"ViT-{letter}/{patch_px}" if letter else f"ViT-{layers}x{width}/{patch_px}"


def _load_clip(folder: Path) -> CLIPVisionModelWithProjection:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no CLIP model (config.json is missing); see evaluate.encoder")
    try:
        model: CLIPVisionModelWithProjection = CLIPVisionModelWithProjection.from_pretrained(
            folder, local_files_only=True
        )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded as a CLIP model: {one_line(error)}") from None
    model.eval()
    return model


def _pixel_statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel: those in the file, or OpenAI's without one."""
    try:
        config = json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    return tuple(config.get("image_mean", CLIP_MEAN)), tuple(config.get("image_std", CLIP_STD))
