"""The text-to-image prior that the painter starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, PNDMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.demo.scenes import Scene
from pbe.demo.weights.clip import tokenize
from pbe.demo.weights.crops import draw_scenes, to_tensor
from pbe.demo.weights.recipe import CONTEXT_DIM, IMAGE_PX, Recipe, recipe_key
from pbe.demo.weights.resumable import Progress, optimize
from pbe.method.pretrained import load_vae
from pbe.method.unet import UNet
from pbe.method.windows import cut_window, square_window

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FINE_PATTERNS = ("checked", "dotted")


def build_prior() -> UNet:
    config = {
        "sample_size": IMAGE_PX // 4,
        "block_out_channels": [64, 96],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": CONTEXT_DIM,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet(config)


def train_prior(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train the text-to-image prior on single objects; a caption's context is its end token with some noise.

    The end token summarizes a caption as CLIP's class token summarizes an image, so that a prior that uses it alone is
    ready for the paper's condition of one token. The noise covers the gap between the two modalities, as in unCLIP.
    Late timesteps, which determine the composition, are drawn more often.
    """
    torch.manual_seed(recipe.seed + 6)
    rng = np.random.default_rng([recipe.seed, 6])
    samples = draw_samples(recipe, 6, out, rng)
    key = recipe_key(recipe, "prior", out / "vae", out / "text_encoder", out / "tokenizer")
    unet, schedule = build_prior(), DDPMScheduler(**SCHEDULE)

    def loss_of(step: int) -> Tensor:
        latents, context = samples.batch(recipe.prior_batch, recipe.prior_drop, recipe.prior_context_noise, rng)
        timesteps = torch.from_numpy(1000 * np.sqrt(rng.random(len(latents)))).long()
        return denoising_loss(unet, schedule, latents, context, timesteps)

    PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1).save_pretrained(out / "scheduler")
    losses = train_average(unet, loss_of, recipe.prior_steps, recipe.prior_lr, "prior", state, key, rng)
    unet.half().save_pretrained(out / "unet")
    return {"loss": float(np.mean(losses[-500:]))}


def refine_prior(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train the prior in `out` on, on other scenes and with all timesteps alike, of which the small ones draw patterns.

    The part prior leaves blotches in the place of checks and dots: its loss was still falling. It takes bf16, a third
    less time. A prior that was refined before is refined again.
    """
    torch.manual_seed(recipe.seed + 8)
    rng = np.random.default_rng([recipe.seed, 8])
    samples = draw_samples(recipe, 8, out, rng)
    return _refine(recipe, "detail", recipe.detail_steps, samples, _uniform, out, state, rng)


def refine_patterns(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Refine the prior again; most objects have one of the patterns that it draws worst, checks and dots."""
    torch.manual_seed(recipe.seed + 9)
    rng = np.random.default_rng([recipe.seed, 9])
    samples = draw_samples(
        recipe, 9, out, rng, lambda pattern: pattern in FINE_PATTERNS or rng.random() < recipe.patterns_coarse_share
    )
    return _refine(recipe, "patterns", recipe.patterns_steps, samples, _uniform, out, state, rng)


def refine_middle(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Refine the prior once more, on timesteps near the middle above all, where colours and patterns form.

    The timesteps are logit-normal, as in Stable Diffusion 3 (Esser et al., 2024). Checks and dots are still drawn more
    often than in the world. The part patterns drew them even more often, and the painter's colours became worse.
    """
    torch.manual_seed(recipe.seed + 10)
    rng = np.random.default_rng([recipe.seed, 10])
    samples = draw_samples(
        recipe, 10, out, rng, lambda pattern: pattern in FINE_PATTERNS or rng.random() < recipe.middle_coarse_share
    )
    return _refine(recipe, "middle", recipe.middle_steps, samples, _logit_normal, out, state, rng)


def _uniform(size: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.integers(1000, size=size))


def _logit_normal(size: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(1000 / (1 + np.exp(-rng.standard_normal(size)))).long()


def _refine(
    recipe: Recipe,
    part: str,
    steps: int,
    samples: "Samples",
    draw_timesteps: Callable[[int, np.random.Generator], Tensor],
    out: Path,
    state: Path,
    rng: np.random.Generator,
) -> dict[str, float]:
    inputs = [out / "unet", out / "vae", out / "text_encoder", out / "tokenizer"]
    key = recipe_key(recipe, part, *inputs) + recipe_key(recipe, "detail")
    unet, schedule = UNet.from_pretrained(out / "unet").float().train(), DDPMScheduler(**SCHEDULE)

    def loss_of(step: int) -> Tensor:
        latents, context = samples.batch(recipe.detail_batch, recipe.detail_drop, recipe.detail_context_noise, rng)
        timesteps = draw_timesteps(len(latents), rng)
        with torch.autocast("cpu", torch.bfloat16):
            return denoising_loss(unet, schedule, latents, context, timesteps)

    losses = train_average(unet, loss_of, steps, recipe.detail_lr, part, state, key, rng)
    unet.half().save_pretrained(out / "unet")
    return {"loss": float(np.mean(losses[-500:]))}


@dataclass(frozen=True)
class Samples:
    """Windows of scenes as scaled latents, (N, 4, 16, 16), and the context of each, (N, 1, 128)."""

    latents: Tensor
    contexts: Tensor
    empty: Tensor

    def batch(self, size: int, drop: float, noise: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw latents and contexts: a share `drop` of those is the empty caption's, and all have noise."""
        index = torch.from_numpy(rng.integers(len(self.latents), size=size))
        dropped = torch.from_numpy(rng.random(size) < drop)[:, None, None]
        context = torch.where(dropped, self.empty, self.contexts[index])
        return self.latents[index], context + noise * context.std() * torch.randn_like(context)


def draw_samples(
    recipe: Recipe,
    stream: int,
    out: Path,
    rng: np.random.Generator,
    keeps: Callable[[str], bool] = lambda pattern: True,
) -> Samples:
    """Draw and encode scenes of one whole object; `keeps` is asked with the pattern of each."""
    drawn = draw_scenes(recipe.num_scenes, recipe.seed + stream, max_objects=1)
    scenes = [scene for scene in drawn if not scene.objects[0].is_truncated]
    scenes = [scene for scene in scenes if keeps(scene.objects[0].attributes.pattern)]
    latents, inside = encode_scenes(scenes, out, rng)
    return Samples(latents, *encode_captions([scenes[i].caption for i in inside], out))


def train_average(
    unet: UNet,
    loss_of: Callable[[int], Tensor],
    steps: int,
    lr: float,
    name: str,
    state: Path,
    key: str,
    rng: np.random.Generator,
) -> list[float]:
    """Train the UNet, leave the average of its weights in it, and return the loss of each step."""
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    progress = Progress(state / f"{name}.pt", key, {"unet": unet, "ema": ema}, rng)
    losses = optimize(
        list(unet.parameters()), loss_of, steps, lr, name, progress, after_step=lambda step: ema.step(unet.parameters())
    )
    ema.copy_to(unet.parameters())
    return losses


def denoising_loss(unet: UNet, schedule: DDPMScheduler, latents: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
    noise = torch.randn_like(latents)
    predicted = unet(schedule.add_noise(latents, noise, timesteps), timesteps, context)
    return F.mse_loss(predicted, noise)


@torch.no_grad()
def encode_scenes(scenes: list[Scene], folder: Path, rng: np.random.Generator) -> tuple[Tensor, list[int]]:
    """Return scaled latents of two windows of each scene that contain the whole object, and each one's scene index."""
    vae = load_vae(folder)
    crops, inside = [], []
    for i, scene in enumerate(scenes):
        for _ in range(2):
            window = square_window(scene.image.shape[0], scene.image.shape[1], scene.objects[0].box, rng)
            crops.append(cut_window(scene.image, window, IMAGE_PX))
            inside.append(i)
    chunks = [
        vae.encode(to_tensor(crops[i : i + 64])).latent_dist.mode() for i in tqdm(range(0, len(crops), 64), "latents")
    ]
    return torch.cat(chunks) * vae.config.scaling_factor, inside


@torch.no_grad()
def encode_captions(captions: list[str], folder: Path) -> tuple[Tensor, Tensor]:
    """Return the end tokens' states of the captions, (N, 1, 128), and of the empty caption, (1, 1, 128)."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tower = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)

    def encode(texts: list[str]) -> Tensor:
        return torch.as_tensor(tower(**tokenize(tokenizer, texts)).pooler_output[:, None])

    unique = sorted(set(captions))
    states = torch.cat([encode(unique[i : i + 256]) for i in range(0, len(unique), 256)])
    state_of = dict(zip(unique, states, strict=True))
    return torch.stack([state_of[caption] for caption in captions]), encode([""])
