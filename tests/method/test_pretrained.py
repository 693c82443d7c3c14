"""Pretrained parts: a file with missing or unknown tensors is refused, never completed with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from pbe.errors import UserError
from pbe.method.conditioner import Conditioner
from pbe.method.pretrained import load_tower, load_vae
from pbe.method.unet import UNet
from tests.support.tiny_models import WIDTH, tiny_tower_config, tiny_unet, tiny_vae

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
Change = Callable[[dict[str, Tensor]], object]


def change_weights(file: Path, change: Change) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def without(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def with_unknown(tensors: dict[str, Tensor]) -> None:
    tensors["other.weight"] = torch.zeros(2)


def save_tower(folder: Path) -> Path:
    CLIPVisionModelWithProjection(tiny_tower_config()).save_pretrained(folder)
    return folder


def save_conditioner(folder: Path) -> Path:
    Conditioner(tiny_tower_config(), 24).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [(without("conv_in.bias"), "unet: lacks conv_in.bias$"), (with_unknown, "unet: has unknown other.weight$")],
)
def test_a_unet_with_a_missing_or_unknown_tensor_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    tiny_unet().save_pretrained(tmp_path / "unet")
    UNet.from_pretrained(tmp_path / "unet")
    change_weights(tmp_path / "unet" / DIFFUSERS_WEIGHTS, change)
    with pytest.raises(UserError, match=message):
        UNet.from_pretrained(tmp_path / "unet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("quant_conv.weight"), "vae: lacks quant_conv.weight$"),
        (lambda tensors: tensors.clear(), r"vae: lacks [\w.]+, [\w.]+, [\w.]+ and \d+ more$"),
        (with_unknown, "vae: has unknown other.weight$"),
    ],
)
def test_a_vae_with_missing_or_unknown_tensors_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    tiny_vae().save_pretrained(tmp_path / "vae")
    load_vae(tmp_path)
    change_weights(tmp_path / "vae" / DIFFUSERS_WEIGHTS, change)
    with pytest.raises(UserError, match=message):
        load_vae(tmp_path)


LAYER_NORM = "vision_model.post_layernorm.weight"


def from_tower(folder: Path) -> Any:
    return Conditioner.from_tower(folder, WIDTH)


@pytest.mark.parametrize("load", [lambda folder: load_tower(CLIPVisionModelWithProjection, folder), from_tower])
def test_an_incomplete_clip_tower_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    file = save_tower(tmp_path) / "model.safetensors"
    change_weights(file, with_unknown)  # such as the text tower of a complete CLIP
    load(tmp_path)
    change_weights(file, without(LAYER_NORM))
    with pytest.raises(UserError, match=f"{tmp_path.name}: lacks {LAYER_NORM}$"):
        load(tmp_path)


def reshape_v(tensors: dict[str, Tensor]) -> None:
    tensors["uncond_vector"] = torch.zeros(1, 2, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("proj_out.weight"), "lacks proj_out.weight$"),
        (without("uncond_vector"), "lacks uncond_vector$"),
        (without(f"model.{LAYER_NORM}"), "lacks model.post_layernorm.weight$"),
        (with_unknown, "has unknown other.weight$"),
        (reshape_v, r"uncond_vector is \(1, 2, 24\), not \(1, 1, 24\)$"),
    ],
)
def test_a_conditioner_with_other_tensors_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    file = save_conditioner(tmp_path) / "model.safetensors"
    Conditioner.from_pretrained(tmp_path)
    change_weights(file, change)
    for load in (Conditioner.from_pretrained, from_tower):
        with pytest.raises(UserError, match=f"{tmp_path.name}: {message}"):
            load(tmp_path)
