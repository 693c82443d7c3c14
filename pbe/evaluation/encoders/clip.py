"""CLIP's image tower with its projection, from a local folder."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from pbe.errors import UserError, one_line
from pbe.evaluation.encoders.precision import digest_weights, exact_convolutions
from pbe.evaluation.encoders.protocol import Features
from pbe.evaluation.encoders.vision_transformer import embed, pack
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD
from pbe.runtime.devices import precision_name

_CPU = torch.device("cpu")


class ClipEncoder:
    """A CLIP image tower with its projection, from a local folder: ViT-B/32 for the paper's definition."""

    sees_tiles = False

    def __init__(self, folder: Path, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> None:
        model = _load_clip(folder)
        input_px, patch_px = model.config.image_size, model.config.patch_size
        assert isinstance(input_px, int)
        assert isinstance(patch_px, int)
        self._mean, self._std = _pixel_statistics(folder / "preprocessor_config.json")
        self.input_px = input_px
        precision = precision_name(dtype)
        self.digest = digest_weights(model, self._mean, self._std, input_px, precision)
        vit = vit_name(model.config.hidden_size, model.config.num_hidden_layers, patch_px)
        self.name = f"CLIP {vit} at {input_px} px" + ("" if dtype == torch.float32 else f" in {precision}")
        self._model = model
        self._model.to(device, dtype)  # type: ignore[arg-type]
        if device.type == "cpu" and dtype == torch.float32:
            pack(self._model)

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        return self.encode_pixels(self.to_pixels(images))

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return pixels of zero mean and unit variance over CLIP's training images; see `PixelEncoder`."""
        device = self._model.device
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous().float().div(255)
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (self._mean, self._std))
        return pixels.sub_(mean).div_(std)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Features:
        """Return projected class tokens, not normalised; see `PixelEncoder`."""
        with exact_convolutions():
            embeds = embed(self._model, pixels.to(self._model.dtype))
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
