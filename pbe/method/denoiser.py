"""The denoiser: a text-to-image UNet with the inputs for repainting (section 3.2, image prior).

    eps_theta(y_t, (1 - m) * x_s, m, c, t)

The first convolution gets five more input channels, zero-initialised: before training the UNet predicts exactly what
the text-to-image model does. The order of the input channels is the paper's: noisy latents, masked-image latents, mask.
Stable Diffusion's inpainting models have another order: noisy latents, mask, masked-image latents. The mask channel is
1 where to repaint, except in the authors' weights, which take 1 where to keep.

The condition is a single token. Softmax over one key is 1, so that cross attention adds one vector per sample,

    to_out(softmax(q k^T) v) = to_out(to_v(c)),

and needs no query, key or softmax. `SingleTokenAttention` computes this form and leaves longer contexts to diffusers.
"""

import copy
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

NUM_LATENT_CHANNELS = 4
NUM_EXTRA_CHANNELS = 5
PAPER_ORDER = (0, 1, 2, 3, 5, 6, 7, 8, 4)  # the inpainting models' channels in the paper's order

_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
          "_forward_pre_hooks_with_kwargs")  # fmt: skip
MaskChannel = Literal["repaint", "keep"]  # what 1 means in the mask channel


class SingleTokenAttention(AttnProcessor2_0):  # type: ignore[misc]
    """Cross attention over one token, computed exactly as a linear map of the token."""

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
    """Add the five input channels of the masked source and the mask to a text-to-image UNet, in place.

    Raises ValueError when the UNet does not have four input channels.
    """
    old = unet.conv_in
    if old.in_channels != NUM_LATENT_CHANNELS:
        raise ValueError(
            f"the first convolution of the prior has {old.in_channels} input channels, not {NUM_LATENT_CHANNELS}"
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
    """Reorder the input channels of the first convolution in place: new channel i is old channel order[i]."""
    unet.conv_in.weight.copy_(unet.conv_in.weight[:, list(order)].clone())
    return unet


def attend_to_one_token(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Replace the cross attention of a UNet by its one-token form; freeze the parameters that then have no gradient."""
    processors = {
        name: SingleTokenAttention() if ".attn2." in name else processor
        for name, processor in unet.attn_processors.items()
    }
    unet.set_attn_processor(processors)
    for name, parameter in unet.named_parameters():
        if any(part in name for part in (".attn2.to_q.", ".attn2.to_k.", ".norm2.")) and ".transformer_blocks." in name:
            parameter.requires_grad_(False)
    return unet


def share_prefix(unet: UNet2DConditionModel, repeats: int) -> UNet2DConditionModel:
    """Return a view of the UNet that computes the layers before the first cross attention once for all `repeats`.

    Its batches must be the same latents and timesteps `repeats` times, each time with another context, as guidance
    calls the UNet. These layers, the first self attention among them, do not depend on the context: the result is
    exact. The view shares every tensor and changes nothing of the UNet itself, which other threads may be using.
    """
    if repeats == 1:
        return unet

    def take_one(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(_first(a, repeats) for a in args), {k: _first(v, repeats) for k, v in kwargs.items()}

    def give_all(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.repeat(repeats, *[1] * (output.ndim - 1))

    view = _view(unet, set(map(id, context_free_modules(unet))))
    for module in context_free_modules(view):
        module.register_forward_pre_hook(take_one, with_kwargs=True)
        module.register_forward_hook(give_all)
    return view


def _view(module: Any, chosen: set[int]) -> Any:
    """Copy the chosen modules, by id, and those that contain them; the other modules and all tensors are shared."""
    children = {name: _view(child, chosen) for name, child in module._modules.items() if child is not None}
    shares_all = all(child is module._modules[name] for name, child in children.items())
    if shares_all and id(module) not in chosen:
        return module
    view = copy.copy(module)
    view._modules = module._modules | children
    for name in _HOOKS:
        setattr(view, name, getattr(module, name).copy())
    view._compiled_call_impl = None  # it would call the module, not the view
    return view


def _first(value: Any, repeats: int) -> Any:
    return value[: len(value) // repeats] if isinstance(value, Tensor) and value.ndim else value


def context_free_modules(unet: UNet2DConditionModel) -> list[nn.Module]:
    """Return the modules that a UNet calls before its first cross attention, none of which takes the context."""
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
    """Concatenate (B, 4, h, w), (B, 4, h, w) and (B, 1, h, w), 1 = repaint, to (B, 9, h, w); "keep" inverts it."""
    return torch.cat([noisy_latents, masked_latents, mask if mask_channel == "repaint" else 1 - mask], 1)


def mask_latents(mask: Tensor, height: int, width: int) -> Tensor:
    """Resize a pixel mask (B, 1, H, W) to (B, 1, height, width) by nearest neighbour, as the official code does."""
    return F.interpolate(mask.float(), size=(height, width), mode="nearest")
