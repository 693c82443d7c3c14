"""The folder of pretrained parts that training starts from, in diffusers' layout; `pretrained` loads them."""

import json
from pathlib import Path

PARTS = ("unet", "vae", "scheduler", "image_encoder", "text_encoder", "tokenizer")


def check_backbone(folder: Path) -> None:
    """Raise ValueError naming the first part of the backbone that the folder lacks."""
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ValueError(f"{folder}: the backbone lacks its part {part}/; it needs {', '.join(PARTS)}")


def write_backbone_card(folder: Path, origin: dict[str, str]) -> None:
    """Record where the parts came from in `backbone.json`."""
    (folder / "backbone.json").write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n")
