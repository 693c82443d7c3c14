"""Adapters: low-rank changes of a painter's linear layers, LoRA (Hu et al., 2021, arXiv 2106.09685).

    W' = W + weight (alpha / r) B A,   A (r, in), B (out, r)

Training writes them in peft's format: adapter_config.json and adapter_model.safetensors, whose metadata say which
painter they were trained on. Here they are read and merged into a painter's weights. The changes of several adapters
add up, so that they can be stacked on any painter of the same architecture.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.method.weight_files import check_finite, read_weights
from pbe.runtime.files import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's, before the names of the painter's layers
BASE = "base"  # the metadata's digest of the painter that the adapter was trained on
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PLAIN = {"bias": "none", "use_dora": False, "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}}


@dataclass(frozen=True)
class Adapter:
    """The factors of the layers' changes, by the names of the layers in a painter."""

    where: Path
    factors: dict[str, tuple[Tensor, Tensor]]  # A (r, in), B (out, r); of a convolution (r, in, k, k), (out, r, 1, 1)
    scale: float  # alpha / r
    traits: Mapping[str, str]  # of the painter that it was trained on, see `traits_of`


def traits_of(painter: Painter) -> dict[str, str]:
    """Return what an adapter and its painter must agree in, although the shapes of the layers do not show it."""
    return {
        "mask_channel": painter.mask_channel,
        "prediction": "velocity" if painter.predicts_velocity else "noise",
        "condition": "class token" if painter.conditioner.bottleneck else "all tokens",
    }


def digest_painter(painter: Painter) -> str:
    """Return a digest of the weights that adapters change and build on: UNet and conditioner, 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(painter.state_dict().items()):
        if not name.startswith("vae."):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter; raises UserError for a folder that holds none, or another kind than plain LoRA."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not an adapter ({name} is missing)")
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder / CONFIG}: peft_type is {config.get('peft_type')}; only LORA is supported")
    for key, plain in _PLAIN.items():
        if config.get(key) not in (plain, None):
            raise UserError(f"{folder / CONFIG}: {key} is {config[key]}; only {plain} is supported")
    tensors = read_weights(folder / WEIGHTS)
    check_finite(folder, tensors)
    with safe_open(folder / WEIGHTS, "pt") as file:
        traits = file.metadata() or {}
    return Adapter(folder, _pair(folder / WEIGHTS, tensors), _scale(folder / CONFIG, config), traits)


def _scale(file: Path, config: dict[str, Any]) -> float:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        raise UserError(f"{file}: r is {rank} and lora_alpha is {alpha}; they must be numbers, r at least 1")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pair(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    downs = {name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)}
    ups = {name.removesuffix(_UP) for name in tensors if name.endswith(_UP)}
    if odd := sorted((downs ^ ups) | {name for name in tensors if not name.endswith((_DOWN, _UP))}):
        raise UserError(f"{file}: {odd[0]} is not a pair of lora_A and lora_B")
    return {
        name.removeprefix(PREFIX): (tensors[name + _DOWN].float(), tensors[name + _UP].float())
        for name in sorted(downs)
    }


@torch.no_grad()
def merge_adapter(painter: Painter, adapter: Adapter, weight: float = 1.0) -> None:
    """Add an adapter's changes, times `weight`, to a painter's weights.

    Raises UserError when it belongs to another architecture; the painter is then unchanged.
    """
    traits = traits_of(painter)
    for key, value in traits.items():
        if adapter.traits.get(key, value) != value:
            raise UserError(
                f"{adapter.where}: trained on a painter with {key} {adapter.traits[key]!r}; this one has {value!r}"
            )
    layers = {name: _layer(painter, name, adapter) for name in adapter.factors}
    for name, (down, up) in adapter.factors.items():
        parameter = layers[name].weight
        change = (up.flatten(1) @ down.flatten(1)).view_as(parameter)
        parameter.add_(change.to(parameter), alpha=weight * adapter.scale)


def _layer(painter: Painter, name: str, adapter: Adapter) -> nn.Linear | nn.Conv2d:
    """Return the layer that an adapter's factors change; raises UserError if there is none of their shape."""
    try:
        layer = painter.get_submodule(name)
    except AttributeError:
        layer = painter
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise UserError(f"{adapter.where}: changes the layer {name}, which this painter does not have")
    down, up = adapter.factors[name]
    if (len(up), *down.shape[1:]) != tuple(layer.weight.shape) or up.shape[1] != len(down) or up[0, 0].numel() != 1:
        raise UserError(
            f"{adapter.where}: lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)} of {name} "
            f"do not fit its weight {tuple(layer.weight.shape)}"
        )
    return layer
