"""Files of weights: which ones a folder holds, whether they are complete, and their tensors.

A download that was cut short, or a clone without Git LFS, leaves files that are not weights. They are found by their
first bytes and their size before a library reads them, so that the error names the file and says what to do.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pbe.errors import UserError, one_line

SAFETENSORS = ".safetensors"
VARIANTS = ("", ".fp16", ".bf16", ".non_ema")  # `model.fp16.safetensors`, as the hub's download of one variant leaves
_LFS = b"version https://git-lfs"
_PICKLE = b"\x80"  # of torch.save before 1.6
_MAX_HEADER_BYTES = 100_000_000


class WeightFiles(NamedTuple):
    """The weights of one part: one file, or several shards."""

    files: tuple[Path, ...]
    variant: str | None  # such as fp16


def find_weights(folder: Path, *stems: str) -> WeightFiles:
    """Return the weights in a folder: safetensors before pickles, full precision before variants.

    `stems` are names without a suffix, such as `model` and `pytorch_model`. Raises UserError when there are none, or
    when a file is missing or is not what its name says.
    """
    for suffix in (SAFETENSORS, ".bin"):
        for variant in VARIANTS:
            for stem in stems:
                file, index = folder / f"{stem}{variant}{suffix}", _index(folder, stem, variant, suffix)
                files = (file,) if file.is_file() else _shards(index) if index else ()
                if files:
                    for each in files:
                        check_weights(each)
                    return WeightFiles(files, variant.removeprefix(".") or None)
    raise UserError(f"{folder}: holds no weights ({stems[0]}{SAFETENSORS} is missing)")


def check_weights(file: Path) -> None:
    """Raise UserError naming the file unless it begins as a file of weights does and is as long as its header says."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(max(8, len(_LFS)))
    except FileNotFoundError:
        raise UserError(f"{file}: is missing; download it again") from None
    if size == 0:
        raise UserError(f"{file}: is empty; download it again")
    if start.startswith(_LFS):
        raise UserError(f"{file}: is a Git LFS pointer, not the weights; run git lfs pull where it was cloned")
    if start.lstrip().startswith(b"<"):
        raise UserError(f"{file}: is a web page, not weights; download it again")
    if file.suffix.lower() == SAFETENSORS:
        if size != (wanted := _safetensors_size(file, int.from_bytes(start[:8], "little"), size)):
            raise UserError(f"{file}: has {size} bytes instead of {wanted}; download it again")
    elif not (start.startswith(_PICKLE) or zipfile.is_zipfile(file)):
        raise UserError(f"{file}: is damaged, or not a file of weights; download it again")


def read_weights(file: Path) -> dict[str, Any]:
    """Return what a file of weights holds; raises UserError naming it when it cannot be read safely."""
    check_weights(file)
    try:
        if file.suffix.lower() == SAFETENSORS:
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        raise unreadable(file, error) from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds {type(content).__name__}, not named tensors")
    return content


def unreadable(file: Path, error: Exception) -> UserError:
    """Return the error for a file that torch or safetensors refuses, without torch's advice to load it unsafely."""
    if isinstance(error, pickle.UnpicklingError):
        return UserError(f"{file}: holds Python objects that are not tensors, or is damaged; it is not loaded")
    return UserError(f"{file}: cannot be read as weights ({one_line(error)[:200]})")


def check_finite(where: object, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError naming the first tensor with a NaN or an infinity; a sum finds it at the speed of memory."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise UserError(f"{where}: {name} holds NaN or infinite values; convert or train the model again")


def _index(folder: Path, stem: str, variant: str, suffix: str) -> Path | None:
    """Return the file that lists the shards; the hub names it in two ways where there is a variant."""
    names = (f"{stem}{suffix}.index{variant}.json", f"{stem}{variant}{suffix}.index.json")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        return tuple(index.parent / Path(name).name for name in sorted(names))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index}: is not an index of weights; download it again") from None


def _safetensors_size(file: Path, header_bytes: int, size: int) -> int:
    """Return how many bytes a file should have by its header."""
    damaged = UserError(f"{file}: is damaged, or not a safetensors file; download it again")
    if not 0 < header_bytes <= _MAX_HEADER_BYTES:
        raise damaged
    if header_bytes + 8 > size:
        return header_bytes + 8
    with file.open("rb") as opened:
        opened.seek(8)
        header = opened.read(header_bytes)
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise damaged from None
