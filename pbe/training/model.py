"""What is optimised: the whole UNet, the mapper with its projection, and v. VAE and CLIP tower stay frozen, outside.

L = E || eps_theta(y_t, (1-m) * x_s, m, MLP(CLIP(A(x_r))), t) - eps ||^2,   c replaced by v for a share of the samples
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbe.method.denoiser import denoiser_input
from pbe.method.diffusion import add_noise, denoising_loss
from pbe.method.guidance import drop_context
from pbe.method.painter import Painter


@dataclass(frozen=True)
class Batch:
    """Cached encodings and the draws of one step, all of the same length B."""

    source_latents: Tensor  # (B, 4, h, w)
    masked_latents: Tensor  # (B, 4, h, w)
    mask: Tensor  # (B, 1, h, w)
    class_tokens: Tensor  # (B, T, W)
    noise: Tensor  # (B, 4, h, w)
    timesteps: Tensor  # (B,)
    dropped: Tensor  # (B,) bool: conditions replaced by v

    def to(self, device: str | torch.device) -> "Batch":
        return Batch(*(t.to(device, non_blocking=True) for t in self.__dict__.values()))


class PaintingLoss(nn.Module):
    """A painter's trainable parts; a batch goes in, one loss a sample comes out, (B,)."""

    def __init__(self, painter: Painter) -> None:
        super().__init__()
        self.unet = painter.unet
        self.mapper = painter.conditioner.mapper
        self.final_layer_norm = painter.conditioner.final_layer_norm
        self.proj_out = painter.conditioner.proj_out
        self.uncond_vector = painter.conditioner.uncond_vector
        self.mask_channel = painter.mask_channel
        self.alphas_cumprod: Tensor
        self.register_buffer("alphas_cumprod", painter.alphas_cumprod, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        context = self.proj_out(self.final_layer_norm(self.mapper(batch.class_tokens)))  # (B, T, D)
        context = drop_context(context, self.uncond_vector, batch.dropped)
        noisy = add_noise(batch.source_latents, batch.noise, batch.timesteps, self.alphas_cumprod)
        x = denoiser_input(noisy, batch.masked_latents, batch.mask, self.mask_channel)  # (B, 9, h, w)
        return denoising_loss(self.unet(x, batch.timesteps, context).sample, batch.noise)

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


class ExponentialMovingAverage:
    """Averaged weights; the decay rises with the step so that the start is soon forgotten."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in parameters.values()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(self.weights[name])
