"""Loads the pretrained parts of a backbone or a painter, complete or not at all.

diffusers and transformers fill in tensors that a file lacks with random weights; here they are errors.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor

from pbe.errors import UserError, one_line
from pbe.method.weight_files import SAFETENSORS, check_finite, find_weights
from pbe.runtime.files import read_json, write_json

# What the samplers compute. Other values would be ignored, and the images would be wrong.
_SCHEDULE = {
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "trained_betas": None,
    "rescale_betas_zero_snr": False,
}  # fmt: skip
ZERO_TERMINAL_SNR = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}  # together or not at all
_LOADING_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
                   SafetensorError, StrictDataclassError)  # fmt: skip
_PNDM_DEFAULTS = {"beta_schedule": "linear", "prediction_type": "epsilon", "rescale_betas_zero_snr": False}


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the VAE in `folder`/vae in fp32, frozen.

    Raises UserError when the folder cannot be read, or naming the first tensors that are missing or unknown.
    """
    where = folder / "vae"
    read_json(where / "config.json")
    weights = find_weights(where, "diffusion_pytorch_model")
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "output_loading_info": True}
    options |= {"variant": weights.variant, "use_safetensors": weights.files[0].suffix == SAFETENSORS}
    vae, info = build_part(AutoencoderKL.from_pretrained, where, where, **options)
    _check_names(where, info["missing_keys"], info["unexpected_keys"])
    check_finite(where, vae.state_dict())
    return vae.requires_grad_(False).eval()


def load_tower(kind: Any, folder: Path) -> Any:
    """Return the transformers model in `folder` in fp32; a file may hold more than it, such as all of CLIP.

    Raises UserError when the folder cannot be read, or naming the first tensors that are missing.
    """
    read_json(folder / "config.json")
    variant = find_weights(folder, "model", "pytorch_model").variant
    model, info = build_part(
        kind.from_pretrained, folder, folder, dtype=torch.float32, output_loading_info=True, variant=variant
    )
    _check_names(folder, info["missing_keys"], ())
    return model


def load_scheduler(folder: Path) -> PNDMScheduler | DDIMScheduler:
    """Return the noise schedule: PNDM's, or DDIM's if it ends with zero signal, which PNDM's cannot.

    Raises UserError unless it is Stable Diffusion's and the model predicts the noise, or with zero terminal SNR the
    velocity.
    """
    file = folder / "scheduler_config.json"
    config = read_json(file)
    has_zero_snr = all(config.get(key) == value for key, value in ZERO_TERMINAL_SNR.items())
    for key, wanted in (_SCHEDULE | (ZERO_TERMINAL_SNR if has_zero_snr else {})).items():
        if (value := config.get(key, _PNDM_DEFAULTS.get(key))) != wanted:
            shown = "a list" if isinstance(value, list) else value
            raise UserError(f"{file}: {key} is {shown}; only {wanted} is supported")
    start, end, steps = (config.get(key) for key in ("beta_start", "beta_end", "num_train_timesteps"))
    if not (isinstance(start, float) and isinstance(end, float) and 0 < start < end < 1):
        raise UserError(f"{file}: beta_start is {start} and beta_end is {end}; they must lie within 0 and 1, in order")
    if not (isinstance(steps, int | None) and (steps is None or steps > 1)):
        raise UserError(f"{file}: num_train_timesteps is {steps}; it must be a whole number")
    kind = DDIMScheduler if has_zero_snr else PNDMScheduler
    return build_part(kind.from_pretrained, folder, folder)


def with_zero_terminal_snr(scheduler: PNDMScheduler | DDIMScheduler) -> DDIMScheduler:
    """Return DDIM's schedule with the same betas, rescaled to end with zero signal; the model predicts the velocity."""
    changes = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}
    return DDIMScheduler.from_config(scheduler.config, **ZERO_TERMINAL_SNR, **changes)


def forget_origin(config: Path) -> None:
    """Remove the path that a part was loaded from from its config: equal models are then equal files."""
    values = read_json(config)
    values.pop("_name_or_path", None)
    write_json(config, values)


def check_tensors(where: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise UserError naming the first tensors that are missing, unknown or of another shape in the file `where`."""
    _check_names(where, wanted.keys() - given.keys(), given.keys() - wanted.keys())
    for name, tensor in wanted.items():
        if not isinstance(given[name], Tensor):
            raise UserError(f"{where}: {name} is {type(given[name]).__name__}, not a tensor")
        if tensor.shape != given[name].shape:
            raise UserError(f"{where}: {name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}")


def build_part(build: Callable[..., Any], folder: Path, *args: Any, **options: Any) -> Any:
    """Call a library's constructor with the values of a user's folder, without its log.

    Raises UserError for what the libraries raise on files that are missing or damaged, on tensors of other shapes and
    on values that no model can have.
    """
    with quiet_libraries():
        try:
            return build(*args, **options)
        except _LOADING_ERRORS as error:
            raise UserError(f"{folder}: cannot be loaded ({one_line(error)[:300]})") from None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' warnings: what they warn of is an error here, or has no meaning for a painter."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _check_names(where: Path, missing: Iterable[str], unknown: Iterable[str]) -> None:
    for what, names in (("lacks", sorted(missing)), ("has unknown", sorted(unknown))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"{where}: {what} {', '.join(names[:3])}{more}")
