"""The folder of pretrained parts that training starts from, in diffusers' layout; `pretrained` loads them.

A backbone is a text-to-image model with a CLIP image tower, as in the paper, or a painter to be trained further.
"""

import json
from pathlib import Path

from pbe.errors import UserError

PAINTER_PARTS = ("unet", "vae", "scheduler", "image_encoder")
PARTS = (*PAINTER_PARTS, "text_encoder", "tokenizer")
INDEX = "model_index.json"
PAINTER_CLASS = "PaintByExamplePipeline"


def is_painter(folder: Path) -> bool:
    """Whether the folder holds a painter, this project's or the published one, by its index."""
    index = folder / INDEX
    return index.is_file() and json.loads(index.read_text()).get("_class_name") == PAINTER_CLASS


def parts_of(folder: Path) -> tuple[str, ...]:
    """What a backbone like the folder's consists of; a painter takes no text."""
    return PAINTER_PARTS if is_painter(folder) else PARTS


def check_backbone(folder: Path) -> None:
    """Raise UserError naming the first part of the backbone that the folder lacks."""
    parts = parts_of(folder)
    for part in parts:
        if not (folder / part).is_dir():
            raise UserError(f"{folder}: the backbone lacks its part {part}/; it needs {', '.join(parts)}")


def write_backbone_card(folder: Path, origin: dict[str, str]) -> None:
    """Record where the parts came from in `backbone.json`."""
    (folder / "backbone.json").write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n")
