"""Export to the published folder, `Fantasy-Studio/Paint-by-Example` in diffusers' layout.

The folder holds unet, vae, image_encoder, scheduler and feature_extractor; each part loads with diffusers and
transformers alone. `Painter.from_pretrained` reads the published folder, which diffusers 0.42 no longer does.
"""

from pathlib import Path

from pbe.interchange.mask_channel import keeping
from pbe.method.backbone import INDEX
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD, Conditioner
from pbe.method.painter import Painter
from pbe.runtime.files import read_json, write_json


def write_published(painter: Painter, folder: Path) -> None:
    """Write a painter in the published layout; raises UserError for a painter without the bottleneck."""
    keeping(painter).save_pretrained(folder)
    (folder / "feature_extractor").mkdir(exist_ok=True)
    write_json(folder / "feature_extractor" / "preprocessor_config.json", _preprocessor(painter.conditioner))
    index = read_json(folder / INDEX)
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": [None, None],
              "requires_safety_checker": False}  # fmt: skip
    write_json(folder / INDEX, index)


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
