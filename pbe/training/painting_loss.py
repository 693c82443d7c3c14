"""The trainable parts and their loss: the whole UNet, the mapper with its projection, and v. VAE and CLIP stay frozen.

    L = E || eps_theta(y_t, (1 - m) * x_s, m, MLP(CLIP(A(x_r))), t) - eps ||^2

In a share of the samples, v replaces the condition. `pbe.method.diffusion` has the equation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbe.method.denoiser import denoiser_input
from pbe.method.diffusion import denoising_loss, min_snr_weights
from pbe.method.painter import Painter


@dataclass(frozen=True)
class Batch:
    """The encodings of B samples and the random draws of one step."""

    source_latents: Tensor  # (B, 4, h, w)
    masked_latents: Tensor  # (B, 4, h, w)
    mask: Tensor  # (B, 1, h, w)
    class_tokens: Tensor  # (B, T, W)
    noise: Tensor  # (B, 4, h, w)
    timesteps: Tensor  # (B,)
    dropped: Tensor  # (B,) bool: v replaces the condition

    def to(self, device: str | torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in self.__dict__.values()))

    def pinned(self) -> "Batch":
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return Batch(*(t.pin_memory() for t in self.__dict__.values()))

    def split(self, size: int) -> "list[Batch]":
        """Return batches of at most `size` samples."""
        return [Batch(*parts) for parts in zip(*(t.split(size) for t in self.__dict__.values()), strict=True)]


class PaintingLoss(nn.Module):
    """The trainable parts of a painter: takes a batch and returns the loss of each sample, (B,).

    With `min_snr_gamma` the losses are weighted in training mode; in evaluation mode they never are, so that validation
    losses with and without it compare.
    """

    def __init__(self, painter: Painter, min_snr_gamma: float | None = None) -> None:
        super().__init__()
        self.min_snr_gamma = min_snr_gamma
        self.predicts_velocity = painter.predicts_velocity
        self.unet = painter.unet
        self.mapper = painter.conditioner.mapper
        self.final_layer_norm = painter.conditioner.final_layer_norm
        self.proj_out = painter.conditioner.proj_out
        self.uncond_vector = painter.conditioner.uncond_vector
        self.mask_channel = painter.mask_channel
        self.alphas_cumprod: Tensor
        self.register_buffer("alphas_cumprod", painter.alphas_cumprod, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        losses = denoising_loss(
            self._predict,
            batch.source_latents,
            batch.masked_latents,
            batch.mask,
            self._context(batch.class_tokens),
            self.uncond_vector,
            batch.dropped,
            batch.noise,
            batch.timesteps,
            self.alphas_cumprod,
            predicts_velocity=self.predicts_velocity,
        )
        if self.min_snr_gamma is None or not self.training:
            return losses
        return losses * min_snr_weights(batch.timesteps, self.alphas_cumprod, self.min_snr_gamma)

    def _context(self, class_tokens: Tensor) -> Tensor:
        tokens = class_tokens.to(self.uncond_vector.dtype)  # (B, T, W)
        return torch.as_tensor(self.proj_out(self.final_layer_norm(self.mapper(tokens))))  # (B, T, D)

    def _predict(self, noisy: Tensor, masked: Tensor, mask: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        x = denoiser_input(noisy, masked, mask, self.mask_channel)  # (B, 9, h, w)
        return torch.as_tensor(self.unet(x, timesteps, context))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}
