"""Checkpoints: written whole or not at all, checksummed, the newest few kept; a damaged one is named and skipped."""

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch

log = logging.getLogger(__name__)

STATE = "state.pt"
CHECKSUM = "sha256.txt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` as the checkpoint of `step`, then remove all but the newest `keep`.

    Raises OSError when it cannot be written, on a full disk say; what was written of it is removed, and those before
    it stay.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, state)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one: of a whole one the run would have gone on
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, state: dict[str, Any]) -> None:
    with (folder / STATE).open("wb") as file:
        hashing = _Hashing(file)
        try:
            torch.save(state, hashing)  # type: ignore[arg-type]  # a file to write to is all that it needs
        except RuntimeError:  # torch's own words hide why a write failed
            if hashing.error:
                raise hashing.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
    (folder / CHECKSUM).write_text(hashing.digest.hexdigest() + "\n")


class _Hashing:
    """A file to write to that knows the SHA-256 of what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first; what a killed writer left is not among them."""
    return sorted(p for p in folder.glob("step-*") if p.is_dir())


def find_newest(folder: Path) -> Path | None:
    """The newest undamaged checkpoint, or None; each damaged one is named in a warning."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if is_whole(checkpoint):
            return checkpoint
        log.warning("%s: damaged, its checksum does not fit; the checkpoint before it is used", checkpoint)
    return None


def load_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The state that was saved, on the CPU."""
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return state


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left; to be called where no other writes."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint's state is there and fits its checksum."""
    state, checksum = checkpoint / STATE, checkpoint / CHECKSUM
    return state.is_file() and checksum.is_file() and _sha256(state) == checksum.read_text().strip()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
