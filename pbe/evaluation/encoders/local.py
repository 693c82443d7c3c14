"""Encoders for identity from a local folder in the layout of transformers: DINO, DINOv2 and DINOv3.

Later work on exemplar-based editing measures identity by the class token of DINO ViT-S/16 (Caron et al., 2021) or of
DINOv2 (Oquab et al., 2023). Nothing is downloaded: the folder holds config.json and the weights, and
preprocessor_config.json where the pixel statistics are not ImageNet's.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from pbe.errors import UserError, one_line
from pbe.evaluation.encoders.clip import ClipEncoder, vit_name
from pbe.evaluation.encoders.efficientnet import EfficientNetEncoder
from pbe.evaluation.encoders.precision import digest_weights, exact_convolutions
from pbe.evaluation.encoders.protocol import Features, PixelEncoder
from pbe.runtime.devices import precision_name
from pbe.runtime.files import read_json

EFFICIENTNET = "efficientnet_lite0"
NO_ENCODER = "none"
_FAMILIES = {  # model_type of config.json -> what reports call it; "vit" is DINO's, and that of supervised ViTs
    "vit": "ViT",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
    "dinov3_vit": "DINOv3",
}
_INPUT_PX = 224  # at which DINO and DINOv2 are used; the positions of DINOv2 were trained at 518
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CPU = torch.device("cpu")


def open_identity_encoder(
    identity: str, device: torch.device = _CPU, dtype: torch.dtype = torch.float32
) -> PixelEncoder | None:
    """Return the encoder that `evaluate.identity` names; None for "none".

    "efficientnet_lite0" needs no file. Otherwise it is a folder of DINO, DINOv2, DINOv3 or CLIP in the layout of
    transformers. Raises UserError naming the folder when it holds none of them.
    """
    if identity == NO_ENCODER:
        return None
    if identity == EFFICIENTNET:
        return EfficientNetEncoder(device, dtype)
    folder = Path(identity)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; evaluate.identity is {_supported()}")
    family = read_json(folder / "config.json").get("model_type")
    if family in ("clip", "clip_vision_model"):
        return ClipEncoder(folder, device, dtype)
    if family not in _FAMILIES:
        raise UserError(f"{folder / 'config.json'}: model_type {family!r}; evaluate.identity is {_supported()}")
    return ClassTokenEncoder(folder, _FAMILIES[family], device, dtype)


def _supported() -> str:
    return (
        f"{EFFICIENTNET}, {NO_ENCODER}, or a folder that transformers' save_pretrained wrote, with one of the "
        f"model types {', '.join(_FAMILIES)} and clip (DreamSim's own files are not read)"
    )


class ClassTokenEncoder:
    """A vision transformer of `transformers`; its features are class tokens after the last LayerNorm, (B, D)."""

    sees_tiles = False

    def __init__(
        self, folder: Path, family: str, device: torch.device = _CPU, dtype: torch.dtype = torch.float32
    ) -> None:
        is_plain = family == _FAMILIES["vit"]
        model, pixels = _load(folder, {"add_pooling_layer": False} if is_plain else {}), _preprocessing(folder)
        self.input_px = _input_px(pixels)
        self._mean, self._std = (
            tuple(pixels.get("image_mean", _IMAGENET_MEAN)), tuple(pixels.get("image_std", _IMAGENET_STD)),
        )  # fmt: skip
        config: Any = model.config
        self._interpolates = {"interpolate_pos_encoding": True} if is_plain else {}
        self.digest = digest_weights(model, self._mean, self._std, self.input_px, precision_name(dtype))
        vit = vit_name(config.hidden_size, config.num_hidden_layers, config.patch_size)
        precision = "" if dtype == torch.float32 else f" in {precision_name(dtype)}"
        self.name = f"{folder.name} ({family}, {vit}, class token) at {self.input_px} px{precision}"
        self._model = model
        self._model.to(device, dtype)  # type: ignore[arg-type]

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        return self.encode_pixels(self.to_pixels(images))

    def to_pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Return pixels of zero mean and unit variance over the training images; see `PixelEncoder`."""
        device = self._model.device
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float().div(255)
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (self._mean, self._std))
        return pixels.sub_(mean).div_(std)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> Features:
        """Return class tokens, not normalised; see `PixelEncoder`."""
        with exact_convolutions():
            tokens: Tensor = self._model(
                pixel_values=pixels.contiguous().to(self._model.dtype), **self._interpolates
            ).last_hidden_state[:, 0]
        return np.asarray(tokens.float().cpu().numpy(), np.float32)


def _load(folder: Path, options: dict[str, bool]) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModel.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded as a vision transformer: {one_line(error)}") from None
    model.eval()
    return model


def _preprocessing(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    return read_json(path) if path.is_file() else {}


def _input_px(pixels: dict[str, Any]) -> int:
    """Return the side of the network's input: the crop's, the size's, or 224."""
    sizes = (
        [pixels.get("crop_size"), pixels.get("size")] if pixels.get("do_center_crop", True) else [pixels.get("size")]
    )
    for size in sizes:
        if isinstance(size, int):
            return size
        if isinstance(size, dict) and isinstance(size.get("height"), int):
            return int(size["height"])
    return _INPUT_PX
