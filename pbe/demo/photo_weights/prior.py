"""The text-to-image prior for photographs, which the painter starts from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, PNDMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from pbe.demo.photo_weights.captions import MAX_TOKENS, TEMPLATES
from pbe.demo.photo_weights.photos import Photo, PhotoSet
from pbe.demo.photo_weights.recipe import CONTEXT_DIM, IMAGE_PX, PhotoRecipe
from pbe.demo.photo_weights.towers import draw_exemplar
from pbe.demo.photo_weights.windows import draw_window_of
from pbe.demo.weights.crops import to_tensor
from pbe.demo.weights.prior import SCHEDULE, denoising_loss
from pbe.demo.weights.resumable import Progress, optimize
from pbe.evaluation.labels import words_of
from pbe.method.pretrained import load_vae
from pbe.method.unet import UNet
from pbe.runtime.files import atomic_file

_BATCH = 32


def build_prior() -> UNet:
    config = {
        "sample_size": IMAGE_PX // 4,
        "block_out_channels": [32, 64, 128],
        "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": CONTEXT_DIM,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet(config)


def train_prior(recipe: PhotoRecipe, photos: PhotoSet, out: Path, key: str, device: torch.device) -> dict[str, float]:
    """Train the prior on windows around one object; its context is one token with some noise.

    Half of the contexts are the end token of the class's name, half the class token of another crop of the object: the
    towers' common space lets one prior learn from both, as in unCLIP (Ramesh et al., 2022), and a class's name alone
    says little of what an object looks like. Late timesteps, which determine the composition, are drawn more often.
    """
    torch.manual_seed(recipe.seed + 6)
    rng = np.random.default_rng([recipe.seed, 6])
    data = encode_photos(recipe, photos, out, key, device)
    latents, exemplars, words, words_of = (data[k].to(device) for k in ("latents", "exemplars", "words", "words_of"))
    empty = data["empty"].to(device)
    torch.manual_seed(recipe.seed + 7)
    unet = build_prior().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = DDPMScheduler(**SCHEDULE)
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)

    def loss_of(step: int) -> Tensor:
        index = torch.from_numpy(rng.integers(len(latents), size=recipe.prior_batch))
        is_text = torch.from_numpy(rng.random(len(index)) < recipe.prior_text)[:, None]
        column = torch.from_numpy(rng.integers(exemplars.shape[1], size=len(index)))
        form = torch.from_numpy(rng.integers(words.shape[1], size=len(index)))
        context = torch.where(is_text, words[words_of[index], form], exemplars[index, column])[:, None]
        dropped = torch.from_numpy(rng.random(len(index)) < recipe.prior_drop)[:, None, None]
        context = torch.where(dropped, empty, context)
        noise = recipe.prior_context_noise * context.std() * torch.randn(context.shape)
        timesteps = torch.from_numpy(1000 * rng.random(len(index)) ** 0.7).long()
        with torch.autocast(device.type, torch.bfloat16):
            return denoising_loss(unet, schedule, latents[index], context + noise.to(device), timesteps)

    PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1).save_pretrained(out / "scheduler")
    progress = Progress(out / "state" / "prior.pt", key, {"unet": unet, "ema": ema}, rng)
    losses = optimize(
        list(unet.parameters()), loss_of, recipe.prior_steps, recipe.prior_lr, "prior", progress,
        after_step=lambda step: ema.step(unet.parameters()),
    )  # fmt: skip
    averaged = build_prior()
    ema.copy_to(averaged.parameters())
    averaged.half().save_pretrained(out / "unet")
    return {"loss": float(np.mean(losses[-500:]))}


@torch.no_grad()
def encode_photos(
    recipe: PhotoRecipe, photos: PhotoSet, out: Path, key: str, device: torch.device
) -> dict[str, Tensor]:
    """Return scaled latents of several windows of each photograph, class tokens of crops, and end tokens of names.

    latents (N, 4, 32, 32), exemplars (N, E, D), words (L, F, D) of the L labels in F forms, words_of (N,) the label of
    each window, empty (1, 1, D). Latents and class tokens are kept in files, which are read when `key` is the same.
    """
    train = photos.of("train")
    rows = [photo for photo in train for _ in range(recipe.prior_windows)]
    labels = sorted({photo.label for photo in train})
    latents = _kept(out / "state" / "latents.pt", key, lambda: _encode_windows(rows, recipe, photos, out, device))
    exemplars = _kept(out / "state" / "exemplars.pt", key, lambda: _encode_crops(rows, recipe, photos, out, device))
    words, empty = encode_names(labels, out)
    words_of = torch.tensor([labels.index(photo.label) for photo in rows])
    return {"latents": latents, "exemplars": exemplars, "words": words, "words_of": words_of, "empty": empty}


def _kept(file: Path, key: str, encode: Callable[[], Tensor]) -> Tensor:
    if file.is_file() and (kept := torch.load(file, weights_only=True))["key"] == key:
        return torch.as_tensor(kept["tensor"])
    tensor = encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as part:
        torch.save({"key": key, "tensor": tensor}, part)
    return tensor


def _encode_windows(
    rows: list[Photo], recipe: PhotoRecipe, photos: PhotoSet, folder: Path, device: torch.device
) -> Tensor:
    rng = np.random.default_rng([recipe.seed, 5])
    vae = load_vae(folder).to(device)
    latents = []
    for start in tqdm(range(0, len(rows), _BATCH), "latents", mininterval=5):
        windows = [
            draw_window_of(photos.read(p.file), p, recipe.vae_object_probability, rng)
            for p in rows[start : start + _BATCH]
        ]
        with torch.autocast(device.type, torch.bfloat16):
            latents.append(vae.encode(to_tensor(windows).to(device)).latent_dist.mode().float().cpu())
    return torch.as_tensor(torch.cat(latents) * vae.config.scaling_factor)


def _encode_crops(
    rows: list[Photo], recipe: PhotoRecipe, photos: PhotoSet, folder: Path, device: torch.device
) -> Tensor:
    rng = np.random.default_rng([recipe.seed, 8])
    tower = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    tower.to(device)  # type: ignore[arg-type]
    tokens = []
    for start in tqdm(range(0, len(rows), _BATCH), "exemplars", mininterval=5):
        batch = rows[start : start + _BATCH]
        crops = [draw_exemplar(photos.read(p.file), p, rng) for p in batch for _ in range(recipe.prior_exemplars)]
        states = tower.vision_model(pixel_values=to_tensor(crops).to(device)).pooler_output.cpu()
        tokens.append(states.view(len(batch), recipe.prior_exemplars, -1))
    return torch.cat(tokens)


def encode_names(labels: list[str], folder: Path) -> tuple[Tensor, Tensor]:
    """Return the end tokens' states of each label in each form, (L, F, D), and of the empty caption, (1, 1, D)."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)

    def encode(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        states = tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        return torch.as_tensor(states)

    forms = [[template.format(words_of(label)) for template in TEMPLATES] for label in labels]
    return torch.stack([encode(texts) for texts in forms]), encode([""])[None]
