"""The published folder, `Fantasy-Studio/Paint-by-Example` in diffusers' layout: unet, vae, image_encoder, scheduler and
feature_extractor, in and out.

`Painter.from_pretrained` reads it as it is; diffusers 0.42 itself no longer does. What is written is complete: each
part loads with diffusers and transformers alone.
"""

import json
from pathlib import Path

from pbe.interchange.mask_channel import keeping
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD, Conditioner
from pbe.method.painter import Painter


def write_published(painter: Painter, folder: Path) -> None:
    """Write a painter in the published layout; raises UserError where it cannot be said in it."""
    keeping(painter).save_pretrained(folder)
    (folder / "feature_extractor").mkdir(exist_ok=True)
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", _preprocessor(painter.conditioner))
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": [None, None],
              "requires_safety_checker": False}  # fmt: skip
    _write_json(folder / "model_index.json", index)


def _preprocessor(conditioner: Conditioner) -> dict[str, object]:
    clip, side = conditioner.uses_clip_statistics, conditioner.exemplar_px
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": side, "width": side},
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN if clip else [0.5] * 3,
        "image_std": CLIP_STD if clip else [0.5] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
