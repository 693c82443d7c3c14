"""The painter: the whole model, from source, mask and exemplar to the painted picture (section 3).

    y = paste(D(sample(eps~, [E((1 - m) * x_s), m], c)), x_s, m),   c = MLP(CLIP(x_r))

Pixels where the mask is 0 are copied from the source; the official code returns the decoded picture, whose colours
drift everywhere. During sampling, the latents outside the mask are replaced by the source's at the same noise level
(blended latent diffusion, Avrahami et al., 2023), so that the painting continues its surroundings. These latents are
encoded from the source with its hole filled from the rim: the receptive field of a latent beside the hole reaches into
it and would reveal the pixels, or the grey, inside. Finally the painted background is brought to the shade of its
surroundings (`seams`).
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pbe.errors import UserError
from pbe.method.backbone import INDEX, PAINTER_CLASS, PAINTER_PARTS, painter_px
from pbe.method.conditioner import Conditioner, to_pixels
from pbe.method.cuda_graphs import CudaGraphs
from pbe.method.denoiser import (
    NUM_EXTRA_CHANNELS,
    NUM_LATENT_CHANNELS,
    MaskChannel,
    denoiser_input,
    freeze_unused,
    mask_latents,
)
from pbe.method.diffusion import alphas_cumprod, noise_of_velocity, rescale_zero_terminal_snr
from pbe.method.feature_cache import FeatureCache
from pbe.method.guidance import GuidanceInterval, guided
from pbe.method.holes import fill_holes
from pbe.method.pretrained import forget_origin, load_scheduler, load_vae
from pbe.method.previews import Previews
from pbe.method.row_kernels import is_inference_on_cpu, pack_weights
from pbe.method.sampling import check_sampler, sample
from pbe.method.seams import match_rim
from pbe.method.unet import CLASS, UNet
from pbe.runtime.files import read_json

Images = NDArray[np.uint8]  # (B, H, W, 3) RGB
Masks = NDArray[np.uint8]  # (B, H, W), 1 = repaint


class Painter(nn.Module):
    """UNet, VAE, conditioner and noise schedule, for squares of `image_px` and exemplars of `exemplar_px`.

    `mask_channel` is what 1 means to the UNet; masks given to the painter are always 1 = repaint.
    """

    def __init__(
        self,
        unet: UNet,
        vae: AutoencoderKL,
        conditioner: Conditioner,
        scheduler: PNDMScheduler | DDIMScheduler,
        image_px: int,
        mask_channel: MaskChannel = "repaint",
    ) -> None:
        super().__init__()
        self.unet = freeze_unused(unet) if conditioner.bottleneck else unet
        self._graphs: CudaGraphs | None = None
        self.vae = vae.requires_grad_(False)
        self.conditioner = conditioner
        self.set_scheduler(scheduler)
        self.image_px = image_px
        self.mask_channel = mask_channel

    def set_scheduler(self, scheduler: PNDMScheduler | DDIMScheduler) -> None:
        """Set the noise schedule; one that ends with zero signal means that the UNet predicts the velocity."""
        self.scheduler = scheduler
        config = scheduler.config
        self.predicts_velocity = config.prediction_type == "v_prediction"
        schedule = alphas_cumprod(config.num_train_timesteps, config.beta_start, config.beta_end)
        self.alphas_cumprod = rescale_zero_terminal_snr(schedule) if self.predicts_velocity else schedule

    @property
    def exemplar_px(self) -> int:
        return self.conditioner.exemplar_px

    @property
    def latent_factor(self) -> int:
        """Pixels per latent on each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def place(self, device: torch.device, dtype: torch.dtype) -> "Painter":
        """Move the painter to a device and convert its weights for inference; return the painter itself.

        On a CPU, the UNet's wide layers keep their weights packed (`row_kernels`). On a GPU, convolutions run in
        channels_last, and each call of the UNet replays a CUDA graph: on one picture, its thousand kernels take less
        time than launching them one by one.
        """
        self.to(device, dtype)
        if device.type == "cuda":
            self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub lacks this one
            self.vae.to(memory_format=torch.channels_last)
            self._graphs = CudaGraphs(self.unet)
        elif device.type == "cpu":
            pack_weights(self.unet)
        return self

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) in -1..1 to scaled fp32 latents (B, 4, h, w), the mode of the posterior.

        The official code samples from the posterior, whose deviation is tiny.
        """
        pixels = pixels.to(self.vae.dtype)
        modes = [self.vae.encode(each).latent_dist.mode() for each in _parts(pixels)]
        return torch.as_tensor(torch.cat(modes).float() * self.vae.config.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents (B, 4, h, w) to fp32 pixels (B, 3, H, W), about -1..1."""
        unscaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return torch.cat([self.vae.decode(each).sample for each in _parts(unscaled)]).float()

    @torch.inference_mode()
    def paint(
        self,
        sources: Images,
        masks: Masks,
        exemplars: Images | Sequence[Images],
        *,
        guidance_scale: float = 5.0,
        num_steps: int = 50,
        seeds: Sequence[int],
        on_step: Callable[[int, int], None] | None = None,
        on_preview: Callable[[Images], None] | None = None,
        sampler: str = "plms",
        guidance_interval: tuple[float, float] | None = None,
        cache_every: int = 1,
    ) -> Images:
        """Paint each exemplar into its source where the mask is 1.

        Sources (B, H, W, 3) uint8 with H and W multiples of 8, masks (B, H, W) of 0 and 1, exemplars (B, e, e, 3)
        uint8 of any side, and one seed for each noise. Several exemplars of one object are an array (K, e, e, 3) in
        place of one (e, e, 3). Returns (B, H, W, 3) uint8, equal to the sources where the mask is 0; `on_preview` is
        called every few steps with what they would be now. `sampler` is one of `pbe.method.sampling.SAMPLERS`;
        `guidance_interval` limits guidance to noise levels low < sigma_t <= high (`pbe.method.guidance`);
        `cache_every` above 1 runs the deep part of the UNet at every so many calls only, an approximation
        (`pbe.method.feature_cache`). Raises ValueError for shapes that do not match, a negative guidance scale, an
        empty interval, an unknown sampler or a number of steps below 1 or above the schedule's, and UserError for
        guidance with a model that was trained without it and for several exemplars with one without the bottleneck.
        """
        self._check(sources, masks, len(exemplars), guidance_scale, seeds)
        return self.paint_context(
            sources,
            masks,
            torch.cat([self.conditioner.describe(each) for each in exemplars]),
            self.conditioner.uncond_vector,
            guidance_scale=guidance_scale,
            num_steps=num_steps,
            seeds=seeds,
            on_step=on_step,
            on_preview=on_preview,
            sampler=sampler,
            guidance_interval=guidance_interval,
            cache_every=cache_every,
        )

    @torch.inference_mode()
    def paint_context(
        self,
        sources: Images,
        masks: Masks,
        context: Tensor,
        uncond_context: Tensor,
        *,
        guidance_scale: float,
        num_steps: int,
        seeds: Sequence[int],
        on_step: Callable[[int, int], None] | None = None,
        on_preview: Callable[[Images], None] | None = None,
        sampler: str = "plms",
        guidance_interval: tuple[float, float] | None = None,
        cache_every: int = 1,
    ) -> Images:
        """Paint what a context (B, T, D) describes, guided away from `uncond_context` (1, T, D); see `paint`."""
        self._check(sources, masks, len(context), guidance_scale, seeds)
        check_sampler(sampler)
        interval = self._interval(guidance_interval)
        device = next(self.parameters()).device
        source = to_pixels(sources).to(device)
        mask = torch.from_numpy(masks)[:, None].float().to(device)
        masked = self.encode(source * (1 - mask))
        filled = fill_holes(sources, masks)
        known = self.encode(to_pixels(filled).to(device))
        height, width = masked.shape[-2:]
        small_mask = mask_latents(mask, height, width)

        unet = FeatureCache(self.unet, cache_every) if cache_every != 1 else self._graphs or self.unet

        def predict(noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
            x = denoiser_input(noisy, masked, small_mask, self.mask_channel)
            return torch.as_tensor(unet(x, timesteps[:1], context)).float()

        predicted = guided(predict, context, uncond_context, guidance_scale, interval)
        levels = self.alphas_cumprod.to(device)

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            prediction = predicted(noisy, timesteps)
            noise = noise_of_velocity(prediction, noisy, timesteps, levels) if self.predicts_velocity else prediction
            if previews:
                previews.note(noisy, noise, timesteps)
            return noise

        noise = torch.stack([draw_noise(seed, (4, height, width)) for seed in seeds]).to(device)
        painted_cells = F.max_pool2d(mask, self.latent_factor) > 0  # a latent with any pixel to repaint is unknown

        def keep_known(latents: Tensor, alpha_bar: Tensor) -> Tensor:
            return torch.where(painted_cells, latents, alpha_bar.sqrt() * known + (1 - alpha_bar).sqrt() * noise)

        def finish(latents: Tensor) -> Images:
            return self._finish(latents, filled, masks, sources)

        previews = Previews(lambda clean: on_preview(finish(clean)), levels, num_steps) if on_preview else None

        def after_step(done: int, total: int) -> None:
            if previews:
                previews.after_step(done, total)
            if on_step:
                on_step(done, total)

        return finish(sample(denoise, noise, levels, num_steps, sampler, after_step, keep_known))

    def _finish(self, latents: Tensor, filled: Images, masks: Masks, sources: Images) -> Images:
        """Decode latents, match the shade of their background, and put them into the sources where the mask is 1."""
        pixels = self.decode(latents)
        if not torch.isfinite(pixels).all():
            raise UserError(
                "the model painted NaN or infinite values: its weights are damaged, or overflow in this precision"
            )
        decoded = pixels.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        painted = decoded.permute(0, 2, 3, 1).cpu().numpy()
        with ThreadPoolExecutor() as pool:
            painted = np.stack(list(pool.map(match_rim, painted, filled, masks)))
        return np.where(masks[..., None] == 1, painted, sources)

    def save_pretrained(self, folder: Path) -> None:
        """Write the painter in diffusers' layout: unet, vae, image_encoder, scheduler and model_index.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        self.conditioner.save_pretrained(folder / "image_encoder")
        self.scheduler.save_pretrained(folder / "scheduler")
        for part in ("vae", "image_encoder"):
            forget_origin(folder / part / "config.json")
        index = {
            "_class_name": PAINTER_CLASS,
            "image_encoder": ["paint_by_example", "PaintByExampleImageEncoder"],
            "scheduler": ["diffusers", type(self.scheduler).__name__],
            "unet": ["diffusers", CLASS],
            "vae": ["diffusers", "AutoencoderKL"],
            "image_px": self.image_px,
            "mask_channel": self.mask_channel,
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "Painter":
        """Load a painter in fp32; raises UserError naming the part that the folder lacks or that cannot be read."""
        if not (folder / INDEX).is_file():
            raise UserError(f"{folder}: not a model ({INDEX} is missing)")
        for part in PAINTER_PARTS:
            if not (folder / part).is_dir():
                raise UserError(f"{folder}: the model lacks its part {part}/")
        index = read_json(folder / INDEX)
        unet, vae = UNet.from_pretrained(folder / "unet"), load_vae(folder)
        conditioner = Conditioner.from_pretrained(folder / "image_encoder")
        scheduler = load_scheduler(folder / "scheduler")
        _check_parts(folder, unet, vae, conditioner)
        # Only this project writes image_px: another folder has the published layout, whose UNet takes 1 = keep.
        mask_channel = index.get("mask_channel", "repaint" if "image_px" in index else "keep")
        if mask_channel not in ("repaint", "keep"):
            raise UserError(f"{folder / INDEX}: mask_channel is {mask_channel}; it must be repaint or keep")
        return cls(unet, vae, conditioner, scheduler, painter_px(folder), mask_channel).eval()

    def _interval(self, levels: tuple[float, float] | None) -> GuidanceInterval | None:
        if levels is None:
            return None
        low, high = levels
        if not 0 <= low < high:
            raise ValueError(f"guidance interval {low}, {high}: needs 0 <= low < high")
        return GuidanceInterval(low, high, self.alphas_cumprod)

    def _check(
        self, sources: Images, masks: Masks, num_contexts: int, guidance_scale: float, seeds: Sequence[int]
    ) -> None:
        if guidance_scale < 0:
            raise ValueError(f"guidance scale {guidance_scale} is negative")
        if guidance_scale != 1 and not self.conditioner.guidance:
            raise UserError(
                f"guidance scale {guidance_scale}: this model was trained with train.drop_probability 0, without "
                "guidance; use 1"
            )
        if sources.ndim != 4 or sources.shape[1] % 8 or sources.shape[2] % 8:
            raise ValueError(f"sources of shape {sources.shape} are not (B, H, W, 3) with H and W multiples of 8")
        if masks.shape != sources.shape[:3]:
            raise ValueError(f"masks of shape {masks.shape} do not match sources of shape {sources.shape}")
        if num_contexts != len(sources) or len(seeds) != len(sources):
            raise ValueError(f"{len(sources)} sources, {num_contexts} exemplars and {len(seeds)} seeds do not match")


def _check_parts(folder: Path, unet: UNet, vae: AutoencoderKL, conditioner: Conditioner) -> None:
    """Raise UserError unless the parts fit together as Paint by Example does."""
    num_channels, latent_channels = NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS, NUM_LATENT_CHANNELS
    for where, key, value, wanted in (
        ("unet", "in_channels", unet.config["in_channels"], num_channels),
        ("unet", "out_channels", unet.config["out_channels"], latent_channels),
        ("vae", "latent_channels", vae.config.latent_channels, latent_channels),
        ("unet", "cross_attention_dim", unet.config["cross_attention_dim"], conditioner.context_dim),
    ):
        if value != wanted:
            raise UserError(f"{folder / where / 'config.json'}: {key} is {value}; Paint by Example needs {wanted}")


def _parts(samples: Tensor) -> Sequence[Tensor]:
    """Return the batches in which diffusers' autoencoder runs, so that a sample's bits do not depend on the others."""
    return samples.split(1) if is_inference_on_cpu(samples) else (samples,)


def draw_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise of one sample, the same on every device and in every batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
