"""The denoiser: a text-to-image UNet made to repaint (section 3.2, image prior).

Its first convolution gets five more input channels, zero-initialised, so that before training it predicts exactly what
the text-to-image model does. The order of the input channels is the paper's: noisy latents, masked-image latents, mask.
Stable Diffusion's inpainting models have them in another order: noisy latents, mask, masked-image latents. The mask
channel is 1 where to repaint, except in the authors' weights, which want 1 where to keep.

The condition is a single token. Softmax over one key is 1, so cross attention is a bias of each sample:

    to_out(softmax(q k^T) v) = to_out(to_v(c))

and needs no query, key or softmax. `SingleTokenAttention` computes it so, and leaves longer contexts to the stock code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

NUM_LATENT_CHANNELS = 4
NUM_EXTRA_CHANNELS = 5
PAPER_ORDER = (0, 1, 2, 3, 5, 6, 7, 8, 4)  # the inpainting models' channels, put into the paper's order
INPAINTING_ORDER = (0, 1, 2, 3, 8, 4, 5, 6, 7)  # and back

MaskChannel = Literal["repaint", "keep"]  # what 1 means in the mask channel


class SingleTokenAttention(AttnProcessor2_0):  # type: ignore[misc]
    """Cross attention over one token, exactly and without attention."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != 1 or hidden_states.ndim != 3:
            stock: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
            return stock
        value = attn.to_out[0](attn.to_v(encoder_hidden_states))  # (B, 1, D)
        return torch.as_tensor(value.expand(-1, hidden_states.shape[1], -1) / attn.rescale_output_factor)


def widen_input(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Give a text-to-image UNet the five input channels of the masked source and the mask, in place.

    Raises ValueError when it does not have four input channels.
    """
    old = unet.conv_in
    if old.in_channels != NUM_LATENT_CHANNELS:
        raise ValueError(
            f"the prior's first convolution has {old.in_channels} input channels, not {NUM_LATENT_CHANNELS}"
        )
    num_channels = NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS
    new = nn.Conv2d(num_channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :NUM_LATENT_CHANNELS] = old.weight
        new.bias.copy_(old.bias)  # type: ignore[union-attr]
    unet.conv_in = new
    unet.register_to_config(in_channels=num_channels)
    return unet


@torch.no_grad()
def reorder_input(unet: UNet2DConditionModel, order: tuple[int, ...]) -> UNet2DConditionModel:
    """Take the nine input channels in this order from now on, in place: `PAPER_ORDER` or `INPAINTING_ORDER`."""
    unet.conv_in.weight.copy_(unet.conv_in.weight[:, list(order)].clone())
    return unet


def attend_to_one_token(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Replace the cross attention of a UNet by its one-token form, and freeze what then has no gradient."""
    processors = {
        name: SingleTokenAttention() if ".attn2." in name else processor
        for name, processor in unet.attn_processors.items()
    }
    unet.set_attn_processor(processors)
    for name, parameter in unet.named_parameters():
        if any(part in name for part in (".attn2.to_q.", ".attn2.to_k.", ".norm2.")) and ".transformer_blocks." in name:
            parameter.requires_grad_(False)
    return unet


@contextmanager
def shared_prefix(unet: UNet2DConditionModel, repeats: int) -> Iterator[None]:
    """Within the block, a batch is `repeats` times the same latents and timesteps, each time under another context.

    Guidance calls the UNet so. Nothing depends on the context before the first cross attention: what lies there, its
    first self attention among it, is computed for one of the repeats and copied to the others. Exact.
    """

    def take_one(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(_first(a, repeats) for a in args), {k: _first(v, repeats) for k, v in kwargs.items()}

    def give_all(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.repeat(repeats, *[1] * (output.ndim - 1))

    modules = context_free_modules(unet) if repeats > 1 else []
    hooks = [m.register_forward_pre_hook(take_one, with_kwargs=True) for m in modules]
    hooks += [m.register_forward_hook(give_all) for m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(value: Any, repeats: int) -> Any:
    return value[: len(value) // repeats] if isinstance(value, Tensor) and value.ndim else value


def context_free_modules(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The modules that a UNet calls, each on a tensor alone, before its first cross attention."""
    modules: list[nn.Module] = [unet.conv_in]
    for block in unet.down_blocks:
        modules.append(block.resnets[0])
        if getattr(block, "attentions", None):
            transformer = block.attentions[0]
            first = transformer.transformer_blocks[0]
            return [*modules, transformer.norm, transformer.proj_in, first.norm1, first.attn1]
        modules += [*block.resnets[1:], *(block.downsamplers or [])]
    return modules


def denoiser_input(
    noisy_latents: Tensor, masked_latents: Tensor, mask: Tensor, mask_channel: MaskChannel = "repaint"
) -> Tensor:
    """(B, 4, h, w), (B, 4, h, w), (B, 1, h, w), 1 = repaint => (B, 9, h, w), the mask as the denoiser wants it."""
    return torch.cat([noisy_latents, masked_latents, mask if mask_channel == "repaint" else 1 - mask], 1)


def mask_latents(mask: Tensor, height: int, width: int) -> Tensor:
    """Bring a pixel mask (B, 1, H, W) to the latents' size by nearest neighbour, as the official code does."""
    return F.interpolate(mask.float(), size=(height, width), mode="nearest")
