"""The autoencoder: 64 px images to 16 x 16 latents of 4 channels."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from pbe.demo.scenes import Scene
from pbe.demo.weights.crops import draw_scenes, square_crop, to_tensor
from pbe.demo.weights.recipe import IMAGE_PX, NUM_UNSEEN, Recipe, cosine_with_cooldown, recipe_key
from pbe.demo.weights.resumable import Progress, optimize


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_PX,
        mid_block_add_attention=False,
    )


def train_vae(recipe: Recipe, out: Path, state: Path) -> dict[str, float]:
    """Train and save the autoencoder; return its PSNR in dB on unseen scenes and the latents' standard deviation."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 1])
    scenes = draw_scenes(recipe.num_scenes, recipe.seed, max_objects=4)
    vae = build_vae()

    def loss_of(step: int) -> Tensor:
        batch = [square_crop(scenes[i], rng) for i in rng.integers(len(scenes), size=recipe.vae_batch)]
        x = to_tensor([np.ascontiguousarray(b[:, ::-1]) if rng.random() < 0.5 else b for b in batch])
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        reconstruction = F.mse_loss(decoded, x) + 0.1 * F.l1_loss(decoded, x)
        return torch.as_tensor(reconstruction + 1e-6 * posterior.kl().mean())

    def rate(step: int) -> float:
        return cosine_with_cooldown(step, recipe.vae_steps, recipe.vae_horizon, recipe.vae_cooldown_from)

    progress = Progress(state / "vae.pt", recipe_key(recipe, "vae"), {"vae": vae}, rng)
    optimize(list(vae.parameters()), loss_of, recipe.vae_steps, recipe.vae_lr, "vae", progress, rate=rate)
    vae.eval()
    quality = measure_vae(
        vae, draw_scenes(NUM_UNSEEN, recipe.seed + 1, max_objects=4), np.random.default_rng(recipe.seed)
    )
    vae.register_to_config(scaling_factor=1.0 / quality["latent_std"])
    vae.half().save_pretrained(out / "vae")
    return quality


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, scenes: list[Scene], rng: np.random.Generator) -> dict[str, float]:
    """Return the PSNR in dB (mean over images, of 8-bit results) and the latents' standard deviation."""
    psnrs, latents = [], []
    for start in range(0, len(scenes), 32):
        crops = [square_crop(s, rng) for s in scenes[start : start + 32]]
        z = vae.encode(to_tensor(crops)).latent_dist.mode()
        decoded = vae.decode(z).sample.clamp(-1, 1).add(1).mul(127.5).round().permute(0, 2, 3, 1).numpy()
        mse = np.square(decoded - np.stack(crops).astype(np.float32)).mean(axis=(1, 2, 3))
        psnrs.append(10 * np.log10(255**2 / mse))
        latents.append(z)
    return {"psnr_db": float(np.concatenate(psnrs).mean()), "latent_std": float(torch.cat(latents).std())}
