"""The authors' single file, `model.ckpt`: import and export of every tensor of a painter under its LDM name.

A file of this project holds its architecture under an extra key, which other readers ignore. A file without one has the
authors' architecture, Stable Diffusion v1 with CLIP ViT-L/14. Only tensors and plain values are unpickled; objects that
a trainer stored beside them, such as callbacks, become instances of an inert class.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, serialization

from pbe.errors import UserError, one_line
from pbe.interchange.architecture import AUTHORS, Architecture, architecture_of, empty_painter
from pbe.interchange.mask_channel import keeping
from pbe.interchange.names import TOWER, Names, painter_names
from pbe.method.painter import Painter
from pbe.method.pretrained import check_tensors
from pbe.method.weight_files import SAFETENSORS, check_finite, check_weights, unreadable
from pbe.runtime.files import atomic_file

ARCHITECTURE = "pbe_architecture"
_POSITIONS = f"{TOWER}embeddings.position_ids"
# A Lightning checkpoint also holds averages, the VAE's training loss and the noise schedule.
_NO_WEIGHTS = ("model_ema.", "first_stage_model.loss.", _POSITIONS)
_SCHEDULE = ("alphas_cumprod", "betas", "posterior_", "log_one_minus", "logvar", "lvlb_", "sqrt_", "scale_factor")


def read_ldm(file: Path) -> Painter:
    """Load a painter from a `.ckpt` or `.safetensors` file with LDM names.

    Raises UserError when the file cannot be read, or naming a tensor that is missing, unknown, of another shape or not
    finite.
    """
    tensors, saved = _read_safetensors(file) if _is_safetensors(file) else _read_checkpoint(file)
    try:
        architecture = Architecture(**json.loads(saved)) if saved else AUTHORS
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: {ARCHITECTURE} is damaged ({one_line(error)})") from None
    return from_ldm(tensors, architecture, file)


def write_ldm(painter: Painter, file: Path) -> None:
    """Write a painter as the authors' code reads it, complete or not at all.

    Raises UserError as `keeping` does, and for a painter that predicts the velocity, which this format cannot say.

    A `.safetensors` file holds the tensors, and the architecture in its metadata; any other suffix is a checkpoint of
    PyTorch.
    """
    if painter.predicts_velocity:
        raise UserError("the model predicts the velocity (train.zero_terminal_snr); export it with --format diffusers")
    tensors, architecture = to_ldm(painter), architecture_of(painter).to_json()
    with atomic_file(file) as part:
        if _is_safetensors(file):
            save_file({name: each.contiguous() for name, each in tensors.items()}, part, {ARCHITECTURE: architecture})
        else:
            torch.save({"state_dict": tensors, ARCHITECTURE: architecture}, part)


def to_ldm(painter: Painter) -> dict[str, Tensor]:
    """Return the painter's tensors under LDM names, with a mask channel of 1 = keep; most share its memory."""
    painter = keeping(painter)
    state = painter.state_dict()
    tensors = {name: _stack([state[one] for one in ours], name) for name, ours in painter_names(painter).items()}
    return tensors | {_POSITIONS: painter.conditioner.model.embeddings.position_ids}


def from_ldm(tensors: dict[str, Tensor], architecture: Architecture = AUTHORS, where: Path = Path("LDM")) -> Painter:
    """Return the painter of these tensors in fp32; fp32 tensors are not copied. Raises UserError as `read_ldm`."""
    painter = empty_painter(architecture)
    names, empty = painter_names(painter), painter.state_dict()
    wanted = {name: _stack([empty[one] for one in ours], name) for name, ours in names.items()}
    weights = {name: each for name, each in tensors.items() if not str(name).startswith((*_NO_WEIGHTS, *_SCHEDULE))}
    check_tensors(where, wanted, weights)
    check_finite(where, weights)
    painter.load_state_dict(_unstack(weights, names, empty), assign=True)
    return painter


def _stack(parts: list[Tensor], name: str) -> Tensor:
    """Return the LDM tensor of our tensors; in LDM the layers of the VAE's attention are convolutions of one pixel."""
    tensor = torch.cat(parts) if len(parts) > 1 else parts[0].detach()
    is_convolution = ".attn_1." in name and tensor.ndim == 2
    return tensor[..., None, None] if is_convolution else tensor


def _unstack(tensors: dict[str, Tensor], names: Names, empty: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, ours in names.items():
        for one, part in zip(ours, tensors[name].float().chunk(len(ours)), strict=True):
            state[one] = part.reshape(empty[one].shape)
    return state


def _is_safetensors(file: Path) -> bool:
    return file.suffix.lower() == SAFETENSORS


def _read_safetensors(file: Path) -> tuple[dict[str, Any], str | None]:
    """Return the tensors and the architecture."""
    check_weights(file)
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is not a dict
            return tensors, (opened.metadata() or {}).get(ARCHITECTURE)
    except SafetensorError as error:
        raise unreadable(file, error) from None


def _read_checkpoint(file: Path) -> tuple[dict[str, Any], str | None]:
    """Return the tensors and the architecture; what is neither a tensor nor a plain value becomes `_Inert`."""
    check_weights(file)
    try:
        unsafe = serialization.get_unsafe_globals_in_checkpoint(file) if is_zipfile(file) else []
        others: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_Inert, name) for name in unsafe]
        with serialization.safe_globals(others):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        raise unreadable(file, error) from None
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict):
        raise UserError(f"{file}: holds no named tensors")
    saved = content.get(ARCHITECTURE)
    return tensors, saved if isinstance(saved, str) else None


class _Inert:
    """Replaces objects that are neither tensors nor plain values: it accepts any state and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...
