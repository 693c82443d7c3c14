"""The backbone: the pretrained parts that training starts from, one folder in diffusers' layout.

A backbone is a text-to-image model with a CLIP image tower, as in the paper, or a painter to be trained further.
`gather_backbone` copies or downloads its parts; `pretrained` and `conditioner` load them.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from pbe import layout
from pbe.errors import UnavailableError, UserError, one_line
from pbe.runtime.files import read_json, write_json
from pbe.settings import Backbone

PAINTER_PARTS = ("unet", "vae", "scheduler", "image_encoder")
PARTS = (*PAINTER_PARTS, "text_encoder", "tokenizer")
INDEX = "model_index.json"
PAINTER_CLASS = "PaintByExamplePipeline"
CARD = "backbone.json"  # where the parts came from
BUNDLED = {"tiny": layout.TINY, "photo": layout.PHOTO}  # by backbone.source; their priors attend to the end token alone


def is_painter(folder: Path) -> bool:
    """Return whether the folder's index says that it holds a painter, this project's or the published one.

    Raises UserError when the index is not JSON.
    """
    return (folder / INDEX).is_file() and read_json(folder / INDEX).get("_class_name") == PAINTER_CLASS


def parts_of(folder: Path) -> tuple[str, ...]:
    """Return the names of the parts that the folder needs; a painter has no text encoder and no tokenizer."""
    return PAINTER_PARTS if is_painter(folder) else PARTS


def check_backbone(folder: Path) -> None:
    """Raise UserError naming the first part that the folder lacks."""
    parts = parts_of(folder)
    for part in parts:
        if not (folder / part).is_dir():
            raise UserError(f"{folder}: the backbone lacks its part {part}/; it needs {', '.join(parts)}")


def gather_backbone(settings: Backbone, project: Path, out: Path) -> dict[str, str]:
    """Write the parts that `settings` name into the empty folder `out`, with a card, and return the card.

    `backbone.path` is relative to `project`, which also holds the bundled backbones. Raises UserError when no path is
    given, the folder lacks a part, or the Hugging Face hub does not have a repository or revision; UnavailableError
    when the hub cannot be reached.
    """
    card = _download(settings, out) if settings.source == "hub" else _copy(settings, project, out)
    check_backbone(out)
    write_json(out / CARD, card)
    return card


def painter_px(folder: Path) -> int:
    """Return the side of the square that the painter in `folder` paints; raises UserError when nothing valid says it.

    The published index does not say it; the UNet's and the VAE's configurations do.
    """
    image_px = read_json(folder / INDEX).get("image_px")
    if image_px is None:
        sample_size = read_json(folder / "unet" / "config.json").get("sample_size")
        levels = read_json(folder / "vae" / "config.json").get("block_out_channels")
        if isinstance(sample_size, int) and isinstance(levels, list):
            image_px = sample_size * 2 ** (len(levels) - 1)
    if not isinstance(image_px, int) or image_px <= 0 or image_px % 8:
        raise UserError(f"{folder / INDEX}: image_px is {image_px}; it must be a multiple of 8")
    return image_px


def _copy(settings: Backbone, project: Path, out: Path) -> dict[str, str]:
    card: dict[str, str]
    if settings.source in BUNDLED:
        folder, card = project / BUNDLED[settings.source], {"source": settings.source}
    elif settings.path is None:
        raise UserError("params.yaml: backbone.path: name the folder, or set backbone.source to tiny, photo or hub")
    else:
        folder, card = project / settings.path, {"source": "path", "path": settings.path}
        if not folder.is_dir():
            raise UserError(f"params.yaml: backbone.path: {folder} is not a folder")
    check_backbone(folder)
    for part in parts_of(folder):
        shutil.copytree(folder / part, out / part)
    if is_painter(folder):
        shutil.copy(folder / INDEX, out / INDEX)
    return card


def _download(settings: Backbone, out: Path) -> dict[str, str]:
    """Download Stable Diffusion's parts and CLIP's image tower at their revisions; pickled weights are refused."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    loaders: dict[str, Callable[..., object]] = {
        "vae": AutoencoderKL.from_pretrained,
        "unet": UNet2DConditionModel.from_pretrained,
        "scheduler": PNDMScheduler.from_pretrained,
        "text_encoder": CLIPTextModel.from_pretrained,
        "tokenizer": CLIPTokenizer.from_pretrained,
    }
    stable_diffusion, clip = settings.stable_diffusion, settings.clip
    _check_repository("backbone.stable_diffusion", stable_diffusion, settings.stable_diffusion_revision, INDEX)
    _check_repository("backbone.clip", clip, settings.clip_revision, "config.json")
    for part, load in loaders.items():
        options: dict[str, object] = {"subfolder": part, "revision": settings.stable_diffusion_revision}
        if part not in ("scheduler", "tokenizer"):
            options["use_safetensors"] = True
        _download_part(load, stable_diffusion, out / part, options)
    tower = CLIPVisionModelWithProjection.from_pretrained
    _download_part(tower, clip, out / "image_encoder", {"revision": settings.clip_revision})
    return {
        "source": "hub",
        "stable_diffusion": f"{stable_diffusion}@{settings.stable_diffusion_revision}",
        "clip": f"{clip}@{settings.clip_revision}",
    }


def _check_repository(key: str, repository: str, revision: str, file: str) -> None:
    """Ask the hub, or its cache on this machine, for one small file: its errors say what is wrong."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import hf_hub_download

    where = f"params.yaml: {key}: {repository}@{revision}"
    missing = (
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
        hub_errors.RemoteEntryNotFoundError,
        hub_errors.HFValidationError,
    )
    try:
        hf_hub_download(repository, file, revision=revision)
    except missing as error:
        raise UserError(
            f"{where}: the Hugging Face hub does not have it, or not for this account ({one_line(error)})"
        ) from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.HfHubHTTPError) as error:
        raise UnavailableError(f"{where}: the Hugging Face hub cannot be reached ({one_line(error)})") from None


def _download_part(load: Callable[..., object], repository: str, out: Path, options: dict[str, object]) -> None:
    try:
        part = load(repository, **options)
    except OSError as error:
        if error.errno is not None:  # an error of this machine's disk
            raise
        raise UnavailableError(f"{repository}: {out.name} could not be downloaded ({one_line(error)})") from None
    part.save_pretrained(out)  # type: ignore[attr-defined]
