"""Opening the encoder that `evaluate.encoder` names."""

from pathlib import Path

import torch

from pbe.evaluation.encoders.clip import ClipEncoder, vit_name
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.encoders.tower import TowerEncoder
from pbe.method.conditioner import Conditioner

_CPU = torch.device("cpu")


def open_encoder(encoder: str, tower: Conditioner, device: torch.device = _CPU) -> FeatureEncoder:
    """Return the encoder that `evaluate.encoder` names: "tower" for `tower`, or the folder of a CLIP model.

    It runs on `device`, in fp32. Raises UserError when the folder does not hold a CLIP model.
    """
    if encoder != "tower":
        return ClipEncoder(Path(encoder), device)
    tower = tower.to(device)
    config = tower.config
    patch_px = config.patch_size
    assert isinstance(patch_px, int)
    vit = vit_name(config.hidden_size, config.num_hidden_layers, patch_px)
    return TowerEncoder(tower, f"the painter's own CLIP tower, {vit}")
