"""UNet, VAE and noise schedule of a backbone or a painter, loaded: whole, or told what is missing."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import Tensor

from pbe.errors import UserError


def load_unet(folder: Path) -> UNet2DConditionModel:
    return _load(UNet2DConditionModel, folder)


def load_vae(folder: Path) -> AutoencoderKL:
    """The VAE in `folder`/vae, frozen."""
    return _load(AutoencoderKL, folder / "vae").requires_grad_(False).eval()


def load_scheduler(folder: Path) -> PNDMScheduler:
    """The noise schedule; raises UserError unless it is Stable Diffusion's and the model predicts the noise."""
    scheduler = PNDMScheduler.from_pretrained(folder)
    for key, wanted in (("beta_schedule", "scaled_linear"), ("prediction_type", "epsilon")):
        if scheduler.config[key] != wanted:
            raise UserError(f"{folder}: {key} is {scheduler.config[key]}; only {wanted} can be painted with")
    return scheduler


def forget_origin(config: Path) -> None:
    """Take the path that a part was once loaded from out of its config: the same model is the same bits anywhere."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _load(kind: Any, folder: Path) -> Any:
    """Load in fp32; raises UserError naming the first tensors that are missing or too many."""
    model, info = kind.from_pretrained(
        folder, torch_dtype=torch.float32, low_cpu_mem_usage=False, output_loading_info=True
    )
    _check_names(folder, info["missing_keys"], info["unexpected_keys"])
    return model


def check_tensors(where: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise UserError naming the first tensors that a file lacks, or has too many, or in another shape."""
    _check_names(where, wanted.keys() - given.keys(), given.keys() - wanted.keys())
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            raise UserError(f"{where}: {name} is {tuple(given[name].shape)}, and not {tuple(tensor.shape)}")


def _check_names(where: Path, missing: Iterable[str], unknown: Iterable[str]) -> None:
    for what, names in (("lacks", sorted(missing)), ("has unknown", sorted(unknown))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"{where}: {what} {', '.join(names[:3])}{more}")
