"""The autoencoder for photographs: 128 px images to 32 x 32 latents of 4 channels."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pbe.demo.photo_weights.photos import Photo, PhotoSet
from pbe.demo.photo_weights.recipe import IMAGE_PX, ColourPhase, PhotoRecipe
from pbe.demo.photo_weights.windows import draw_window_of
from pbe.demo.weights.crops import to_tensor
from pbe.demo.weights.recipe import cosine_with_cooldown
from pbe.demo.weights.resumable import Progress, optimize
from pbe.evaluation.encoders.efficientnet import load_efficientnet
from pbe.types import Image

Images = NDArray[np.uint8]
NUM_BLOCKS = 5  # of EfficientNet-Lite0, whose outputs the perceptual term compares: strides 2 to 8


def build_vae(recipe: PhotoRecipe) -> AutoencoderKL:
    levels = len(recipe.vae_channels)
    return AutoencoderKL(
        block_out_channels=recipe.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_PX,
        mid_block_add_attention=False,
    )


class PerceptualDistance(nn.Module):
    """The mean squared difference of normalised features of EfficientNet-Lite0's first blocks, as LPIPS has it.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), without its weights.
    """

    def __init__(self, input_px: int) -> None:
        super().__init__()
        stem, activation, *blocks = load_efficientnet(input_px).requires_grad_(False)
        self.stages = nn.ModuleList([nn.Sequential(stem, activation), *blocks[:NUM_BLOCKS]])

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Compare two batches (B, 3, h, w) in -1..1; the result is one number."""
        distance, x = images.new_zeros(()), torch.cat([images, others])
        for stage in self.stages:
            x = stage(x)
            a, b = F.normalize(x, dim=1).chunk(2)
            distance = distance + (a - b).square().sum(1).mean()
        return distance


def train_vae(recipe: PhotoRecipe, photos: PhotoSet, out: Path, key: str, device: torch.device) -> dict[str, float]:
    """Train and save the autoencoder; return its quality on the photographs held back.

    Pavement is grey: after the first phase the decoder draws a green can blue. The other phases therefore weigh the
    error of the colours, and give a share of the crops their channels in another order.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 1])
    vae, perceptual, train = (
        build_vae(recipe).to(device),
        PerceptualDistance(recipe.vae_crop_px).to(device),
        photos.of("train"),
    )

    def loss_of(step: int) -> Tensor:
        crops = [_crop(photos, train[i], recipe, rng) for i in rng.integers(len(train), size=recipe.vae_batch)]
        x = to_tensor(crops).to(device)
        phase, _ = colour_phase(recipe, step)
        if phase:
            reordered = int(phase.reordered_frac * len(x))
            x[:reordered] = x[:reordered, torch.from_numpy(rng.permutation(3))]
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape).to(device)
            decoded = vae.decode(z).sample.float()
        reconstruction = F.mse_loss(decoded, x) + 0.1 * F.l1_loss(decoded, x)
        loss = reconstruction + recipe.vae_perceptual * perceptual(decoded, x) + 1e-6 * posterior.kl().mean()
        return torch.as_tensor(loss + phase.weight * F.mse_loss(_colours(decoded), _colours(x)) if phase else loss)

    progress = Progress(out / "state" / "vae.pt", key, {"vae": vae}, rng)

    def rate(step: int) -> float:
        phase, phase_step = colour_phase(recipe, step)
        if phase:
            return phase.rate * (phase.steps - phase_step) / phase.steps
        return cosine_with_cooldown(step, recipe.vae_steps, recipe.vae_horizon, recipe.vae_cooldown_from)

    steps = recipe.vae_steps + sum(phase.steps for phase in recipe.vae_colour_phases)
    optimize(list(vae.parameters()), loss_of, steps, recipe.vae_lr, "vae", progress, rate=rate)
    vae.eval()
    quality = measure_vae(vae, photos, recipe, device)
    vae.register_to_config(scaling_factor=1.0 / quality["latent_std"])
    vae.half().save_pretrained(out / "vae")
    return quality


def colour_phase(recipe: PhotoRecipe, step: int) -> tuple[ColourPhase | None, int]:
    """Return the phase that a step belongs to, None for the first, and the step's number within it."""
    step -= recipe.vae_steps
    if step < 0:
        return None, step + recipe.vae_steps
    for phase in recipe.vae_colour_phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise IndexError("no phase has such a step")


@torch.no_grad()
def measure_vae(vae: AutoencoderKL, photos: PhotoSet, recipe: PhotoRecipe, device: torch.device) -> dict[str, float]:
    """Return the quality on windows of the photographs held back, of 8-bit results.

    PSNR is in dB, a mean over windows; `colour_error` is the mean error of `_colours` in grey levels, `sharpness_kept`
    the ratio of mean gradients, `latent_std` the latents' standard deviation.
    """
    rng = np.random.default_rng([recipe.seed, 2])
    windows = np.stack(
        [draw_window_of(photos.read(p.file), p, recipe.vae_object_probability, rng) for p in photos.of("val")]
    )
    latents = torch.cat([vae.encode(to_tensor(list(b)).to(device)).latent_dist.mode() for b in _batches(windows)])
    decoded = np.concatenate([to_images(vae.decode(z).sample) for z in latents.split(16)])
    psnr = 10 * np.log10(255**2 / np.square(decoded.astype(np.float32) - windows).mean(axis=(1, 2, 3)))
    is_fod_a = np.array([p.file.startswith("fod-a/") for p in photos.of("val")])
    return {
        "psnr_db": float(psnr.mean()),
        "psnr_db_fod_a": float(psnr[is_fod_a].mean()),
        "psnr_db_caltech": float(psnr[~is_fod_a].mean()),
        "colour_error": float(
            (_colours(to_tensor(list(decoded))) - _colours(to_tensor(list(windows)))).abs().mean() * 127.5
        ),
        "sharpness_kept": float((_gradients(decoded) / _gradients(windows)).mean()),
        "latent_std": float(latents.std()),
    }


def to_images(pixels: Tensor) -> Images:
    """NCHW in -1..1 => NHWC uint8."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def _crop(photos: PhotoSet, photo: Photo, recipe: PhotoRecipe, rng: np.random.Generator) -> Image:
    window = draw_window_of(photos.read(photo.file), photo, recipe.vae_object_probability, rng)
    top, left = rng.integers(0, IMAGE_PX - recipe.vae_crop_px + 1, size=2)
    return window[top : top + recipe.vae_crop_px, left : left + recipe.vae_crop_px]


def _colours(images: Tensor) -> Tensor:
    """Return what the channels add to their mean, in cells of 4 x 4 pixels."""
    return F.avg_pool2d(images - images.mean(1, keepdim=True), 4)


def _batches(windows: Images) -> list[Images]:
    return [windows[i : i + 16] for i in range(0, len(windows), 16)]


def _gradients(images: Images) -> NDArray[np.float32]:
    """Return the mean step between neighbours, down and across, of each image (N, H, W, 3): (N,)."""
    grey = images.astype(np.float32).mean(axis=3)
    down, across = (np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    return np.asarray(down + across, np.float32)
