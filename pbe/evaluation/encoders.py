"""Image encoders, whose features FID, QS and the CLIP score are computed on.

The paper uses CLIP ViT-B/32. Where it is not available, the painter's own CLIP tower takes its place, and every report
names the encoder: numbers of different encoders are not comparable. Features are fp32 on every device: in bf16 a CLIP
score moves by up to 0.5 (`benchmarks/precision.py`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import CLIPVisionModelWithProjection

from pbe.errors import UserError, one_line
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD, Conditioner
from pbe.method.exemplars import resize
from pbe.types import Image

Features = NDArray[np.float32]

_CPU = torch.device("cpu")


class FeatureEncoder(Protocol):
    """Images (B, input_px, input_px, 3) uint8 RGB => features (B, D) float32."""

    @property
    def name(self) -> str:
        """What reports call the encoder."""

    @property
    def input_px(self) -> int:
        """The side of its square input."""

    @property
    def sees_tiles(self) -> bool:
        """Whether the features of a whole image are the mean over its tiles of input_px at full resolution."""

    def __call__(self, images: NDArray[np.uint8]) -> Features: ...


class Tower(Protocol):
    """The part of a `Conditioner` that `TowerEncoder` uses."""

    @property
    def exemplar_px(self) -> int: ...

    def embed(self, images: NDArray[np.uint8]) -> Features: ...


class TowerEncoder:
    """The painter's own CLIP tower; its features are class tokens of unit norm.

    Its input has the size of exemplars, which are smaller than the painted images. An image shrunk to that size hardly
    shows the edge of a repainted box, so whole images are encoded in tiles.
    """

    sees_tiles = True

    def __init__(self, tower: Tower, name: str) -> None:
        self._tower = tower
        self.input_px = tower.exemplar_px
        self.name = f"{name} at {self.input_px} px (class token, unit norm; of whole images the mean over tiles)"

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        with exact_convolutions():
            return np.asarray(self._tower.embed(images), np.float32)


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
        self.name = f"CLIP {_vit_name(config.hidden_size, config.num_hidden_layers, patch_px)} at {input_px} px"
        self._mean, self._std = _pixel_statistics(folder / "preprocessor_config.json")

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Features:
        pixels = torch.from_numpy(images).float().div(255)  # (B, H, W, 3)
        pixels = ((pixels - torch.tensor(self._mean)) / torch.tensor(self._std)).permute(0, 3, 1, 2)
        with exact_convolutions():
            embeds: torch.Tensor = self._model(pixel_values=pixels.contiguous().to(self._model.device)).image_embeds
        return embeds.float().cpu().numpy()


def exact_convolutions() -> AbstractContextManager[None]:
    """Return a context in which a GPU computes convolutions in fp32; by default torch rounds their inputs to TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def open_encoder(encoder: str, tower: Conditioner, device: torch.device = _CPU) -> FeatureEncoder:
    """Return the encoder that `evaluate.encoder` names: "tower" for `tower`, or the folder of a CLIP model.

    It runs on `device`, in fp32. Raises UserError when the folder does not hold a CLIP model.
    """
    if encoder != "tower":
        return ClipEncoder(Path(encoder), device)
    tower = tower.to(device)
    config = tower.config
    patch_px = config.patch_size
    assert isinstance(patch_px, int)
    vit = _vit_name(config.hidden_size, config.num_hidden_layers, patch_px)
    return TowerEncoder(tower, f"the painter's own CLIP tower, {vit}")


def encode_images(encoder: FeatureEncoder, images: Iterable[Image], batch_size: int) -> Features:
    """Return the features (N, D) of whole images of any size; raises ValueError when there are no images."""
    batches = [encode_whole(encoder, batch) for batch in _batches(images, batch_size)]
    if not batches:
        raise ValueError("no images to encode")
    return np.concatenate(batches)


def encode_whole(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of whole images of any size: each resized, or cut into tiles if the encoder asks."""
    if not encoder.sees_tiles:
        return encode_batch(encoder, images)
    tiles = [_tiles(image, encoder.input_px) for image in images]
    ends = np.cumsum([len(t) for t in tiles])[:-1]
    return np.stack([part.mean(0) for part in np.split(encoder(np.concatenate(tiles)), ends)])


def _tiles(image: Image, side: int) -> NDArray[np.uint8]:
    """Resize the image to a square of the nearest multiple of `side`, and cut it into tiles (N, side, side, 3)."""
    n = max(1, round(min(image.shape[:2]) / side))
    rows = resize(image, n * side, n * side).reshape(n, side, n, side, 3)
    return rows.swapaxes(1, 2).reshape(-1, side, side, 3)


def encode_batch(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Return the features (B, D) of images of any size, each resized to the encoder's input."""
    side = encoder.input_px
    return encoder(np.stack([resize(image, side, side) for image in images]))


def _batches(images: Iterable[Image], batch_size: int) -> Iterator[list[Image]]:
    iterator = iter(images)
    while batch := list(islice(iterator, batch_size)):
        yield batch


def _vit_name(width: int, layers: int, patch_px: int) -> str:
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
