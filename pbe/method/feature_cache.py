"""Deep features of the UNet, kept from one call to the next (DeepCache; Ma et al., 2023, arXiv 2312.00858).

From step to step the features of the low resolutions change little. Every `every`-th call runs the whole UNet and keeps
what enters its last layers; the calls in between run the first and the last layers alone, those that are joined by the
outermost skip connections, on the kept features. With `every` 1 all calls are the UNet's. An approximation, off unless
it is asked for; `docs/sampling.md` says what it costs.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from pbe.method.unet import Level, UNet
from pbe.method.unet_blocks import repeat_to


class FeatureCache:
    """A UNet for the calls of one sampling, in the order of its steps.

    `num_layers` is how many layers of the highest resolution the calls in between run on the way up; on the way down it
    is one fewer. A call with another number of contexts than the call before, as at the ends of a guidance interval,
    runs the whole UNet. Raises ValueError unless `every` and `num_layers` are at least 1, and `num_layers` at most the
    number of layers at the highest resolution.
    """

    def __init__(self, unet: UNet, every: int, num_layers: int = 1) -> None:
        self._unet, self._every, self._num_layers = unet, every, num_layers
        self._down, self._up = cast(Level, unet.down_blocks[0]), cast(Level, unet.up_blocks[-1])
        if every < 1 or not 1 <= num_layers <= len(self._up.resnets):
            raise ValueError(
                f"every {every}, num_layers {num_layers}: at least 1, layers at most {len(self._up.resnets)}"
            )
        self._kept: Tensor | None = None
        self._calls_since = 0

    def __call__(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Predict the noise as the UNet does, of latents (B, C, h, w) with R B contexts: (R B, 4, h, w)."""
        is_due = self._kept is None or len(self._kept) != len(context) or self._calls_since == self._every
        if is_due:
            self._calls_since = 1
            return self._whole(latents, timesteps, context)
        self._calls_since += 1
        return self._shallow(latents, timesteps, context)

    def _whole(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        hook = self._up.resnets[-self._num_layers].register_forward_pre_hook(self._keep)
        try:
            return torch.as_tensor(self._unet(latents, timesteps, context))
        finally:
            hook.remove()

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._kept = inputs[0]

    def _shallow(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        assert self._kept is not None
        unet, dtype = self._unet, self._unet.conv_in.weight.dtype
        context, embedded = context.to(dtype), unet.time_embedding(timesteps)
        skips = [unet.conv_in(latents.to(dtype))]
        for i in range(self._num_layers - 1):
            skips.append(_run_layer(self._down, i, skips[-1], context, embedded))
        h = self._kept
        for i in range(-self._num_layers, 0):
            h = _run_layer(self._up, i, h, context, embedded, skips.pop())
        return unet._predict(h)  # the layers after the last level


def _run_layer(
    level: Level, i: int, h: Tensor, context: Tensor, embedded: Tensor, skip: Tensor | None = None
) -> Tensor:
    """Run residual block and transformer i of a level."""
    rows = embedded if len(embedded) == 1 else repeat_to(embedded, len(h))
    h = level.resnets[i](h, rows, skip if skip is None else repeat_to(skip, len(h)))
    return torch.as_tensor(level.attentions[i](h, context) if level.attentions else h)
