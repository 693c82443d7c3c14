"""Checkpoints: written atomically with a checksum; the newest few are kept, and damaged ones are skipped."""

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pbe.runtime.files import file_sha256

logger = logging.getLogger(__name__)

STATE = "state.pt"
CHECKSUM = "sha256.txt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `state` as the checkpoint of `step`, then remove all but the newest `keep`; return its path.

    Raises OSError when it cannot be written, for example on a full disk. The incomplete checkpoint is then removed, and
    the earlier ones are kept.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, state)
        shutil.rmtree(final, ignore_errors=True)  # damaged: the run would have resumed from a complete one
        temporary.rename(final)
    except OSError as error:
        error.filename = error.filename or str(final)  # a failed write does not name its file
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, state: dict[str, Any]) -> None:
    with (folder / STATE).open("wb") as file:
        hashing = _HashingFile(file)
        try:
            torch.save(state, hashing)  # type: ignore[arg-type]  # it only needs `write` and `flush`
        except RuntimeError:  # torch's own message hides why a write failed
            if hashing.error:
                raise hashing.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
    (folder / CHECKSUM).write_text(hashing.digest.hexdigest() + "\n")


class _HashingFile:
    """A file to write to that computes the SHA-256 of its content and remembers why a write failed."""

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
    """Return the checkpoints of a run, the oldest first, without those that a killed writer left incomplete."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def find_newest(folder: Path) -> Path | None:
    """Return the newest checkpoint that is not damaged, or None; log a warning for each damaged one."""
    for checkpoint in reversed(list_checkpoints(folder)):
        if is_complete(checkpoint):
            return checkpoint
        logger.warning("%s: damaged (its checksum does not match); using the checkpoint before it", checkpoint)
    return None


def load_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return the state that was saved, on the CPU."""
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return state


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left incomplete. No other process may be writing to the folder."""
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_complete(checkpoint: Path) -> bool:
    """Return whether the checkpoint has a state that matches its checksum."""
    state, checksum = checkpoint / STATE, checkpoint / CHECKSUM
    return state.is_file() and checksum.is_file() and file_sha256(state) == checksum.read_text().strip()
