"""Checkpoints: written whole or not at all, checksummed, the newest few kept; a damaged one is named and skipped."""

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

_STATE = "state.pt"
_CHECKSUM = "sha256.txt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` as the checkpoint of `step`, then remove all but the newest `keep`."""
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    torch.save(state, temporary / _STATE)
    (temporary / _CHECKSUM).write_text(_sha256(temporary / _STATE) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first; what a killed writer left is not among them."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest undamaged checkpoint, or None; each damaged one is named in a warning."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if is_whole(checkpoint):
            state: dict[str, Any] = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
            return state
        log.warning("%s: damaged, its checksum does not fit; the checkpoint before it is used", checkpoint)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint's state is there and fits its checksum."""
    state, checksum = checkpoint / _STATE, checkpoint / _CHECKSUM
    return state.is_file() and checksum.is_file() and _sha256(state) == checksum.read_text().strip()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
