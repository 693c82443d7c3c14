"""Loads the pretrained parts of a backbone or a painter, complete or not at all.

diffusers and transformers fill in tensors that a file lacks with random weights; here they are errors.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor

from pbe.errors import UserError, one_line
from pbe.method.backbone import read_json
from pbe.runtime.files import write_json


def load_unet(folder: Path) -> UNet2DConditionModel:
    """Return the UNet in `folder` in fp32; raises UserError as `_load_diffusers` does."""
    return _load_diffusers(UNet2DConditionModel, folder)


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the VAE in `folder`/vae in fp32, frozen; raises UserError as `_load_diffusers` does."""
    return _load_diffusers(AutoencoderKL, folder / "vae").requires_grad_(False).eval()


def load_tower(kind: Any, folder: Path) -> Any:
    """Return the transformers model in `folder` in fp32; a file may hold more than it, such as all of CLIP.

    Raises UserError when the folder cannot be read, or naming the first tensors that are missing.
    """
    model, info = _call(kind.from_pretrained, folder, dtype=torch.float32, output_loading_info=True)
    _check_names(folder, info["missing_keys"], ())
    return model


def load_scheduler(folder: Path) -> PNDMScheduler:
    """Return the noise schedule; raises UserError unless it is Stable Diffusion's and the model predicts the noise."""
    scheduler = _call(PNDMScheduler.from_pretrained, folder)
    for key, wanted in (("beta_schedule", "scaled_linear"), ("prediction_type", "epsilon")):
        if scheduler.config[key] != wanted:
            raise UserError(f"{folder}: {key} is {scheduler.config[key]}; only {wanted} is supported")
    return scheduler


def forget_origin(config: Path) -> None:
    """Remove the path that a part was loaded from from its config: equal models are then equal files."""
    values = read_json(config)
    values.pop("_name_or_path", None)
    write_json(config, values)


def check_tensors(where: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise UserError naming the first tensors that are missing, unknown or of another shape in the file `where`."""
    _check_names(where, wanted.keys() - given.keys(), given.keys() - wanted.keys())
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            raise UserError(f"{where}: {name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}")


def _load_diffusers(kind: Any, folder: Path) -> Any:
    """Load a diffusers model in fp32.

    Raises UserError when the folder cannot be read, or naming the first tensors that are missing or unknown.
    """
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "output_loading_info": True}
    model, info = _call(kind.from_pretrained, folder, **options)
    _check_names(folder, info["missing_keys"], info["unexpected_keys"])
    return model


def _call(from_pretrained: Any, folder: Path, **options: Any) -> Any:
    try:
        return from_pretrained(folder, **options)
    except (OSError, RuntimeError, SafetensorError) as error:  # no file, tensors of other shapes, a damaged file
        raise UserError(f"{folder}: cannot be loaded ({one_line(error)[:300]})") from None


def _check_names(where: Path, missing: Iterable[str], unknown: Iterable[str]) -> None:
    for what, names in (("lacks", sorted(missing)), ("has unknown", sorted(unknown))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"{where}: {what} {', '.join(names[:3])}{more}")
