"""The trainable parts and their loss: the whole UNet, the mapper with its projection, and v. VAE and CLIP stay frozen.

    L = E || eps_theta(y_t, (1 - m) * x_s, m, MLP(CLIP(A(x_r))), t) - eps ||^2

In a share of the samples, v replaces the condition. `pbe.method.diffusion` has the equation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbe import settings
from pbe.method.denoiser import denoiser_input
from pbe.method.diffusion import denoising_loss
from pbe.method.painter import Painter
from pbe.method.unet import UNet


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
    """The trainable parts of a painter: takes a batch and returns the loss of each sample, (B,)."""

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
        return denoising_loss(
            self._predict,
            batch.source_latents,
            batch.masked_latents,
            batch.mask,
            self.proj_out(self.final_layer_norm(self.mapper(batch.class_tokens))),  # (B, T, D)
            self.uncond_vector,
            batch.dropped,
            batch.noise,
            batch.timesteps,
            self.alphas_cumprod,
        )

    def _predict(self, noisy: Tensor, masked: Tensor, mask: Tensor, context: Tensor, timesteps: Tensor) -> Tensor:
        x = denoiser_input(noisy, masked, mask, self.mask_channel)  # (B, 9, h, w)
        return torch.as_tensor(self.unet(x, timesteps, context))

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that training changes, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def prepare_unet(unet: UNet, train: settings.Train, device: str) -> None:
    """Set up a UNet to train fast on the device, or in little memory, as `train` says; it computes the same."""
    if device.startswith("cuda"):
        unet.to(memory_format=torch.channels_last)
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32
    if train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if train.compile is True or (train.compile == "auto" and device.startswith("cuda")):
        unet.compile_blocks()


class ExponentialMovingAverage:
    """An exponential moving average of the weights. The decay rises with the step, so that the start is soon forgotten.

    With `kept_on` "cpu" the averaged weights are on the CPU; with "none" there is no averaging, and `weights` are the
    parameters themselves. With `every` > 1 the average is updated every `every` steps, with the decay of all of them.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        decay: float,
        kept_on: settings.AverageDevice = "device",
        every: int = 1,
    ) -> None:
        self.decay, self.kept_on, self.every = decay, kept_on, every
        self.weights = {name: self._copy(p.detach()) for name, p in parameters.items()}

    def _copy(self, weight: Tensor) -> Tensor:
        if self.kept_on == "none":
            return weight
        return weight.to("cpu", copy=True) if self.kept_on == "cpu" else weight.clone()

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        """Move the average towards the parameters after `step`, counted from 0."""
        if self.kept_on == "none" or (step + 1) % self.every:
            return
        share = 1 - min(self.decay, (1 + step) / (10 + step)) ** self.every
        if self.kept_on == "device":
            torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in parameters.values()], share)
        else:
            for name, parameter in parameters.items():
                self.weights[name].lerp_(parameter.detach().to("cpu"), share)

    @torch.no_grad()
    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        """Overwrite the parameters with the averaged weights."""
        for name, parameter in parameters.items():
            parameter.copy_(self.weights[name])

    @contextmanager
    def swapped_in(self, parameters: dict[str, nn.Parameter]) -> Iterator[None]:
        """Exchange the parameters and the averaged weights for the block, one tensor at a time to save memory."""
        self._swap(parameters)
        try:
            yield
        finally:
            self._swap(parameters)

    @torch.no_grad()
    def _swap(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            current = parameter.clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(current)
