"""The UNet's configuration: what of diffusers' `UNet2DConditionModel` is supported, and what each key means here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbe.errors import UserError

WITH_ATTENTION = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}

# Keys that decide the architecture, with diffusers' defaults.
_DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,  # the number of heads, in spite of its name
    "num_attention_heads": None,
    "use_linear_projection": False,
}

# Keys of other architectures, with the only value that this one can take.
_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}

# Keys that change nothing: they belong to embeddings that are off, or to an attention that PyTorch's replaces.
_WITHOUT_EFFECT = {
    "addition_embed_type_num_heads",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "upcast_attention",
}


@dataclass(frozen=True)
class LevelConfig:
    """One level of the UNet, a down or an up block in diffusers' terms."""

    channels: int
    heads: int
    depth: int  # transformer blocks in each transformer; 0: the level has no attention


def complete_config(config: dict[str, Any], where: Path | str = "UNet") -> dict[str, Any]:
    """Return the configuration with diffusers' defaults for the keys that it lacks, and without private ones.

    Raises UserError naming the key and its value when the architecture is not Stable Diffusion's.
    """
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in given.items():
        if key in _FIXED and value != _FIXED[key]:
            raise UserError(f"{where}: {key} is {value!r}; only {_FIXED[key]!r} is supported")
        if key not in (*_DEFAULTS, *_FIXED, *_WITHOUT_EFFECT) and value:
            raise UserError(f"{where}: {key} is {value!r}; this key is not known to Stable Diffusion's UNet")
    full = _DEFAULTS | given
    for key in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim"):
        if not isinstance(full[key], int) or full[key] < 1:
            raise UserError(f"{where}: {key} is {full[key]!r}; it must be one whole number above 0")
    _check_levels(full, where)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in full.items()}


def _check_levels(config: dict[str, Any], where: Path | str) -> None:
    channels = config["block_out_channels"]
    for key in ("down_block_types", "up_block_types"):
        if len(config[key]) != len(channels):
            raise UserError(f"{where}: {key} has {len(config[key])} entries for {len(channels)} block_out_channels")
        for kind in config[key]:
            if kind not in WITH_ATTENTION:
                raise UserError(f"{where}: {key} has {kind!r}; supported are {', '.join(WITH_ATTENTION)}")
    for key in ("attention_head_dim", "num_attention_heads", "transformer_layers_per_block"):
        values = _for_each(config[key], len(channels))
        if len(values) != len(channels):
            raise UserError(f"{where}: {key} has {len(values)} entries for {len(channels)} block_out_channels")
        for width, value in zip(channels, values, strict=True):
            if value is None and key == "num_attention_heads":
                continue
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{where}: {key} is {config[key]!r}; it must be above 0")
            if key != "transformer_layers_per_block" and width % value:
                raise UserError(
                    f"{where}: {key} is {config[key]!r}; {width} channels cannot be divided into {value} heads"
                )


def down_levels(config: dict[str, Any]) -> list[LevelConfig]:
    """Return the levels on the way down, from the largest resolution to the smallest."""
    return _levels(config, config["down_block_types"])


def up_levels(config: dict[str, Any]) -> list[LevelConfig]:
    """Return the levels on the way up, from the smallest resolution to the largest."""
    return _levels(config, config["up_block_types"][::-1])[::-1]


def middle_level(config: dict[str, Any]) -> LevelConfig:
    """Return the level between them, which always has attention."""
    return _levels(config, ["CrossAttnDownBlock2D"] * len(config["block_out_channels"]))[-1]


def _levels(config: dict[str, Any], kinds: list[str]) -> list[LevelConfig]:
    """Return the levels from the largest resolution to the smallest."""
    channels = config["block_out_channels"]
    heads = _for_each(config["num_attention_heads"] or config["attention_head_dim"], len(channels))
    depths = _for_each(config["transformer_layers_per_block"], len(channels))
    rows = zip(channels, heads, depths, kinds, strict=True)
    return [LevelConfig(width, number, depth if WITH_ATTENTION[kind] else 0) for width, number, depth, kind in rows]


def _for_each(value: Any, num_levels: int) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] * num_levels
