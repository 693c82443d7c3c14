"""Stage backbone: the pretrained parts in diffusers' layout, into models/backbone."""

import shutil
from collections.abc import Callable
from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.errors import UserError
from pbe.method.backbone import INDEX, check_backbone, is_painter, parts_of, write_backbone_card
from pbe.settings import Backbone, Settings
from pbe.types import ProgressBars, no_progress_bars


def backbone(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Bring the backbone that `backbone.source` names to models/backbone, whole or not at all."""
    half = folder / layout.BACKBONE.with_name(".backbone.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    origin = gather(settings.backbone, folder, half)
    check_backbone(half)
    write_backbone_card(half, origin)
    shutil.rmtree(folder / layout.BACKBONE, ignore_errors=True)
    half.rename(folder / layout.BACKBONE)
    return origin


def gather(settings: Backbone, folder: Path, out: Path) -> dict[str, str]:
    """Write the parts into `out` and say where they came from.

    Raises UserError when `path` is asked for and not given, or a folder lacks a part.
    """
    if settings.source == "hub":
        from_hub(settings, out)
        stable_diffusion = f"{settings.stable_diffusion}@{settings.stable_diffusion_revision}"
        return {
            "source": "hub",
            "stable_diffusion": stable_diffusion,
            "clip": f"{settings.clip}@{settings.clip_revision}",
        }
    if settings.source == "path":
        if settings.path is None:
            raise UserError("params.yaml: backbone.path: name the folder, or set backbone.source to tiny or hub")
        origin = folder / settings.path
    else:
        origin = folder / layout.TINY
    check_backbone(origin)
    for part in parts_of(origin):
        shutil.copytree(origin / part, out / part)
    if is_painter(origin):
        shutil.copy(origin / INDEX, out / INDEX)
    return {"source": settings.source} | ({"path": settings.path} if settings.path else {})


def from_hub(settings: Backbone, out: Path) -> None:
    """Fetch Stable Diffusion's parts and CLIP's image tower at their revisions; no pickled weights are taken."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    parts: dict[str, Callable[..., object]] = {
        "vae": AutoencoderKL.from_pretrained,
        "unet": UNet2DConditionModel.from_pretrained,
        "scheduler": PNDMScheduler.from_pretrained,
        "text_encoder": CLIPTextModel.from_pretrained,
        "tokenizer": CLIPTokenizer.from_pretrained,
    }
    for part, load in parts.items():
        weights = {} if part in ("scheduler", "tokenizer") else {"use_safetensors": True}
        loaded = load(settings.stable_diffusion, subfolder=part, revision=settings.stable_diffusion_revision, **weights)
        loaded.save_pretrained(out / part)  # type: ignore[attr-defined]
    tower = CLIPVisionModelWithProjection.from_pretrained(settings.clip, revision=settings.clip_revision)
    tower.save_pretrained(out / "image_encoder")


backbone_flow = stage_flow("backbone", backbone)

if __name__ == "__main__":
    main(backbone_flow)
