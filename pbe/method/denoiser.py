"""The denoiser: a text-to-image UNet with the inputs for repainting (section 3.2, image prior).

    eps_theta(y_t, (1 - m) * x_s, m, c, t)

The first convolution gets five more input channels, zero-initialised: before training the UNet predicts exactly what
the text-to-image model does. The order of the input channels is the paper's: noisy latents, masked-image latents, mask.
Stable Diffusion's inpainting models have another order: noisy latents, mask, masked-image latents. The mask channel is
1 where to repaint, except in the authors' weights, which take 1 where to keep.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pbe.method.row_kernels import Conv2d
from pbe.method.unet import UNet
from pbe.method.unet_blocks import TransformerBlock

NUM_LATENT_CHANNELS = 4
NUM_EXTRA_CHANNELS = 5
PAPER_ORDER = (0, 1, 2, 3, 5, 6, 7, 8, 4)  # the inpainting models' channels in the paper's order

MaskChannel = Literal["repaint", "keep"]  # what 1 means in the mask channel


def widen_input(unet: UNet) -> UNet:
    """Add the five input channels of the masked source and the mask to a text-to-image UNet, in place.

    Raises ValueError when the UNet does not have four input channels.
    """
    old = unet.conv_in
    if old.in_channels != NUM_LATENT_CHANNELS:
        raise ValueError(
            f"the first convolution of the prior has {old.in_channels} input channels, not {NUM_LATENT_CHANNELS}"
        )
    num_channels = NUM_LATENT_CHANNELS + NUM_EXTRA_CHANNELS
    new = Conv2d(num_channels, old.out_channels, 3, padding=1)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :NUM_LATENT_CHANNELS] = old.weight
        new.bias.copy_(old.bias)  # type: ignore[union-attr, arg-type]
    unet.conv_in = new
    unet.config["in_channels"] = num_channels
    return unet


@torch.no_grad()
def reorder_input(unet: UNet, order: tuple[int, ...]) -> UNet:
    """Reorder the input channels of the first convolution in place: new channel i is old channel order[i]."""
    unet.conv_in.weight.copy_(unet.conv_in.weight[:, list(order)].clone())
    return unet


def freeze_unused(unet: UNet) -> UNet:
    """Freeze the parameters that have no gradient when the context is one token; return the UNet itself.

    These are the queries and keys of cross attention and the norms before them (see `unet_blocks`).
    """
    for block in (m for m in unet.modules() if isinstance(m, TransformerBlock)):
        for unused in (block.attn2.to_q, block.attn2.to_k, block.norm2):
            unused.requires_grad_(False)
    return unet


def denoiser_input(
    noisy_latents: Tensor, masked_latents: Tensor, mask: Tensor, mask_channel: MaskChannel = "repaint"
) -> Tensor:
    """Concatenate (B, 4, h, w), (B, 4, h, w) and (B, 1, h, w), 1 = repaint, to (B, 9, h, w); "keep" inverts it."""
    return torch.cat([noisy_latents, masked_latents, mask if mask_channel == "repaint" else 1 - mask], 1)


def mask_latents(mask: Tensor, height: int, width: int) -> Tensor:
    """Resize a pixel mask (B, 1, H, W) to (B, 1, height, width) by nearest neighbour, as the official code does."""
    return F.interpolate(mask.float(), size=(height, width), mode="nearest")
