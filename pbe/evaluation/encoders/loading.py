"""Opening the encoder that `evaluate.encoder` names."""

from pathlib import Path

import torch

from pbe.errors import UserError
from pbe.evaluation.encoders.clip import ClipEncoder
from pbe.evaluation.encoders.protocol import PixelEncoder
from pbe.evaluation.encoders.tower import TowerEncoder
from pbe.method.conditioner import Conditioner
from pbe.runtime.files import read_json

_CPU = torch.device("cpu")


def open_encoder(folder: Path, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> PixelEncoder:
    """Return the encoder in a folder: a painter's image encoder (its tower), or a CLIP model.

    What lies in the folder decides. It runs on `device`, in `dtype`. Raises UserError when the folder holds neither.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no CLIP model (config.json is missing); see evaluate.encoder")
    if "proj_size" in read_json(config):  # of a painter's image encoder
        return TowerEncoder(Conditioner.from_pretrained(folder), device, dtype)
    return ClipEncoder(folder, device, dtype)
