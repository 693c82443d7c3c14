"""The names of tensors in the authors' `model.ckpt` (latent diffusion, LDM) and in this project.

This project's names are diffusers'. They are translated by structure, not by a list, so that UNets, VAEs and towers of
every size are covered. One LDM tensor may stack several others: the mapper's c_qkv is to_q, to_k and to_v.
"""

import re

from diffusers import AutoencoderKL

from pbe.method.conditioner import Conditioner
from pbe.method.painter import Painter
from pbe.method.unet import UNet

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TOWER = "cond_stage_model.transformer.vision_model."

Names = dict[str, tuple[str, ...]]  # LDM name => our names, within the painter

_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_MAPPER = {"norm1": "ln_1", "attn1.to_out.0": "attn.c_proj", "norm3": "ln_2", "ff.net.0.proj": "mlp.c_fc",
           "ff.net.2": "mlp.c_proj"}  # fmt: skip


def painter_names(painter: Painter) -> Names:
    """Return the LDM name of every tensor of a painter: UNet, VAE, tower, mapper, projection and v."""
    parts = {
        "unet.": unet_names(painter.unet),
        "vae.": vae_names(painter.vae),
        "conditioner.": conditioner_names(painter.conditioner),
    }
    return {
        theirs: tuple(part + name for name in ours) for part, names in parts.items() for theirs, ours in names.items()
    }


def unet_names(unet: UNet) -> Names:
    """Return the LDM names of a UNet's tensors; an upsampler follows the residual block and the attention, if any."""
    layers = unet.config["layers_per_block"]
    upsamplers = [1 + bool(block.attentions) for block in unet.up_blocks]
    return {UNET + _unet_name(name, layers, upsamplers): (name,) for name in unet.state_dict()}


def vae_names(vae: AutoencoderKL) -> Names:
    """Return the LDM names of a VAE's tensors."""
    levels = len(vae.config.block_out_channels)
    return {VAE + _vae_name(name, levels): (name,) for name in vae.state_dict()}


def conditioner_names(conditioner: Conditioner) -> Names:
    """Return the LDM names of tower, mapper and last layer norm, and of projection and v, which LDM keeps outside."""
    names: Names = {"learnable_vector": ("uncond_vector",)}
    for name in conditioner.state_dict():
        part, _, rest = name.partition(".")
        if part == "model":
            names[TOWER + rest] = (name,)
        elif part == "final_layer_norm":
            names[f"cond_stage_model.final_ln.{rest}"] = (name,)
        elif part == "proj_out":
            names[name] = (name,)
        elif part == "mapper":
            names |= _mapper_name(name)
    return names


def _unet_name(name: str, layers: int, upsamplers: list[int]) -> str:
    """LDM numbers the blocks of all levels consecutively: the layers of a level, then the one that changes the size."""
    stem, _, parameter = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{parameter}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match.groups()
        return f"middle_block.{2 * int(index) + (kind == 'attentions')}.{_inside(kind, rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    assert match, name
    way, level, kind, index, rest = match.groups()
    first = int(level) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{upsamplers[int(level)]}.{rest}"
    place = first + int(index) + (way == "down")
    return f"{'input' if way == 'down' else 'output'}_blocks.{place}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    stem, _, parameter = rest.rpartition(".")
    return f"{_UNET_RESNET[stem]}.{parameter}" if kind == "resnets" else rest


def _vae_name(name: str, levels: int) -> str:
    name = re.sub(r"(\w+coder)\.conv_norm_out", r"\1.norm_out", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if match := re.fullmatch(r"(\w+coder)\.mid_block\.attentions\.0\.(.*)\.(\w+)", name):
        return f"{match[1]}.mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    return name.replace("conv_shortcut", "nin_shortcut")


def _mapper_name(name: str) -> Names:
    match = re.fullmatch(r"mapper\.blocks\.(\d+)\.(.*)\.(\w+)", name)
    assert match, name
    block, stem, parameter = match.groups()
    theirs = f"cond_stage_model.mapper.resblocks.{block}."
    if stem in ("attn1.to_q", "attn1.to_k", "attn1.to_v"):
        stacked = tuple(f"mapper.blocks.{block}.attn1.to_{letter}.{parameter}" for letter in "qkv")
        return {f"{theirs}attn.c_qkv.{parameter}": stacked}
    return {f"{theirs}{_MAPPER[stem]}.{parameter}": (name,)}
