"""What turns images into the features that FID, QS and the CLIP score are measured on.

The paper's numbers are on CLIP ViT-B/32. Where that is absent the painter's own tower stands in, and is named so in
every report: numbers of different encoders are not comparable.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionModelWithProjection

from pbe.errors import UserError
from pbe.evaluation.bench import Image
from pbe.method.conditioner import Conditioner
from pbe.method.exemplars import resize

Features = NDArray[np.float32]

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class FeatureEncoder(Protocol):
    """Images (B, input_px, input_px, 3) uint8 RGB => features (B, D) float32; `name` goes into the reports.

    Where `sees_tiles` is set, a whole image's features are the mean over its tiles of input_px at full resolution.
    """

    @property
    def name(self) -> str: ...

    @property
    def input_px(self) -> int: ...

    @property
    def sees_tiles(self) -> bool: ...

    def __call__(self, images: NDArray[np.uint8]) -> Features: ...


class Tower(Protocol):
    """The part of a conditioner that an encoder is made of."""

    @property
    def exemplar_px(self) -> int: ...

    def embed(self, images: NDArray[np.uint8]) -> Features: ...


class TowerEncoder:
    """The painter's own CLIP tower: class tokens of unit norm.

    It was made for exemplars, which are smaller than the painted images: of an image shrunk to its size the edge of a
    repainted box is hardly seen, so whole images are shown to it in tiles.
    """

    sees_tiles = True

    def __init__(self, tower: Tower, name: str) -> None:
        self._tower = tower
        self.input_px = tower.exemplar_px
        self.name = f"{name} at {self.input_px} px (class token, unit norm; of whole images the mean over tiles)"

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        return np.asarray(self._tower.embed(images), np.float32)


class ClipEncoder:
    """A CLIP image tower from a local folder, projected, as it comes: ViT-B/32 for the paper's definition."""

    sees_tiles = False

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no CLIP model here (config.json is missing); see evaluate.encoder")
        self._model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True).train(False)
        config = self._model.config
        self.input_px = int(config.image_size)
        self.name = f"CLIP {_vit_name(config.hidden_size, config.num_hidden_layers, config.patch_size)}"
        self.name += f" at {self.input_px} px"
        self._mean, self._std = _pixel_statistics(folder / "preprocessor_config.json")

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Features:
        pixels = torch.from_numpy(images).float().div(255)  # (B, H, W, 3)
        pixels = ((pixels - torch.tensor(self._mean)) / torch.tensor(self._std)).permute(0, 3, 1, 2)
        embeds: torch.Tensor = self._model(pixel_values=pixels.contiguous()).image_embeds
        return embeds.float().numpy()


def open_encoder(encoder: str, tower: Conditioner) -> FeatureEncoder:
    """The encoder that `evaluate.encoder` names: "tower", or a CLIP model's folder (UserError when it is none)."""
    if encoder != "tower":
        return ClipEncoder(Path(encoder))
    config = tower.config
    patch_px = config.patch_size
    assert isinstance(patch_px, int)
    vit = _vit_name(config.hidden_size, config.num_hidden_layers, patch_px)
    return TowerEncoder(tower, f"the painter's own CLIP tower, {vit}")


def encode_images(encoder: FeatureEncoder, images: Iterable[Image], batch_size: int) -> Features:
    """Features (N, D) of whole images of any size, as FID and QS are measured on."""
    batches = [encode_whole(encoder, batch) for batch in _batches(images, batch_size)]
    if not batches:
        raise UserError("there are no images to take features of")
    return np.concatenate(batches)


def encode_whole(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Features (B, D) of whole images of any size: each resized once, or cut into tiles where the encoder wants it."""
    if not encoder.sees_tiles:
        return encode_batch(encoder, images)
    tiles = [_tiles(image, encoder.input_px) for image in images]
    ends = np.cumsum([len(t) for t in tiles])[:-1]
    return np.stack([part.mean(0) for part in np.split(encoder(np.concatenate(tiles)), ends)])


def _tiles(image: Image, side: int) -> NDArray[np.uint8]:
    """The squares (N, side, side, 3) that an image falls into when its sides are brought to the next multiple."""
    n = max(1, round(min(image.shape[:2]) / side))
    rows = resize(image, n * side, n * side).reshape(n, side, n, side, 3)
    return rows.swapaxes(1, 2).reshape(-1, side, side, 3)


def encode_batch(encoder: FeatureEncoder, images: Sequence[Image]) -> Features:
    """Features (B, D) of images of any size, each resized once to the encoder's input side."""
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


def _pixel_statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, OpenAI's where the folder does not say."""
    config = json.loads(path.read_text()) if path.is_file() else {}
    return tuple(config.get("image_mean", _CLIP_MEAN)), tuple(config.get("image_std", _CLIP_STD))
