"""The UNet of latent diffusion (Rombach et al., 2022, section 3.3), in the form of Stable Diffusion 1 and 2.

    eps_theta(y_t, t, c): latents (B, C, h, w), timesteps (B,), context (B, T, D) => predicted noise (B, 4, h, w)

Each level has residual blocks, most also transformers; the levels on the way up also see what the levels on the way
down computed. Names, weights and configuration are those of diffusers' `UNet2DConditionModel`: each loads what the
other saves. What this module adds is speed. Its activations stay channels_last where its weights are, cross attention
over one token is a vector, and guidance, which calls the UNet with two contexts for the same latents, runs the layers
before the first cross attention once.
"""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pbe.method.pretrained import build_part, check_tensors
from pbe.method.row_kernels import Conv2d
from pbe.method.unet_blocks import Downsample, ResidualBlock, Transformer, Upsample, norm_silu, repeat_to
from pbe.method.unet_config import LevelConfig, complete_config, down_levels, middle_level, up_levels
from pbe.method.weight_files import check_finite, find_weights, read_weights
from pbe.runtime.files import read_json

CLASS = "UNet2DConditionModel"  # diffusers' class, which the saved configuration names
WEIGHTS = "diffusion_pytorch_model.safetensors"


class TimeEmbedding(nn.Module):
    """Two layers over the sinusoids of a timestep: (B,) => (B, 4 C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, timesteps: Tensor) -> Tensor:
        waves = sinusoids(timesteps, self.channels).to(self.linear_1.weight.dtype)
        return torch.as_tensor(self.linear_2(F.silu(self.linear_1(waves))))


class Level(nn.Module):
    """The residual blocks of a resolution, each followed by a transformer if the level has attention."""

    downsamplers: nn.ModuleList  # on the way down, but for the last level: one
    upsamplers: nn.ModuleList  # on the way up, but for the last level: one

    def __init__(self, resnets: list[ResidualBlock], attentions: list[Transformer]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)


class UNet(nn.Module):
    """The denoiser's network; `config` is diffusers' configuration, complete."""

    def __init__(self, config: dict[str, Any], where: Path | str = "UNet") -> None:
        super().__init__()
        self.config = complete_config(config, where)
        channels = self.config["block_out_channels"]
        self.gradient_checkpointing = False
        self.conv_in = Conv2d(self.config["in_channels"], channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        self.down_blocks, skips = self._build_down(down_levels(self.config))
        self.mid_block = self._build_middle(middle_level(self.config))
        self.up_blocks = self._build_up(up_levels(self.config), skips)
        self.conv_norm_out = nn.GroupNorm(self.config["norm_num_groups"], channels[0], self.config["norm_eps"])
        self.conv_out = Conv2d(channels[0], self.config["out_channels"], 3, padding=1)

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Predict the noise of latents (B, C, h, w) at timesteps (B,), or (1,) for all, in the weights' dtype.

        A context (R B, T, D) with R times as many rows asks for R predictions of each sample, (R B, 4, h, w): all
        samples with the first B rows, then with the next, as guidance needs. The layers before the first cross
        attention then run once.
        """
        dtype = self.conv_in.weight.dtype
        context = context.to(dtype)
        embedded = self.time_embedding(timesteps)
        h = self.conv_in(latents.to(dtype))
        skips = [h]
        for level in cast(Iterable[Level], self.down_blocks):
            for i, resnet in enumerate(level.resnets):
                h = self._run(resnet, h, one_or_each(embedded, len(h)))
                h = self._run(level.attentions[i], h, context) if level.attentions else h
                skips.append(h)
            for downsample in level.downsamplers:
                h = downsample(h)
                skips.append(h)
        embedded = one_or_each(embedded, len(context))
        h = self._run(self.mid_block.resnets[0], repeat_to(h, len(context)), embedded)
        for transformer, resnet in zip(self.mid_block.attentions, self.mid_block.resnets[1:], strict=True):
            h = self._run(resnet, self._run(transformer, h, context), embedded)
        for level in cast(Iterable[Level], self.up_blocks):
            for i, resnet in enumerate(level.resnets):
                h = self._run(resnet, h, embedded, repeat_to(skips.pop(), len(h)))
                h = self._run(level.attentions[i], h, context) if level.attentions else h
            for upsample in level.upsamplers:
                h = upsample(h, skips[-1].shape[-2:])
        return torch.as_tensor(self._predict(h))

    def _predict(self, h: Tensor) -> Tensor:
        return torch.as_tensor(self.conv_out(norm_silu(self.conv_norm_out, h)))

    def _run(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return torch.as_tensor(checkpoint(block, *inputs, use_reentrant=False))
        return block(*inputs)

    def _build_down(self, levels: list[LevelConfig]) -> tuple[nn.ModuleList, list[int]]:
        """Return the levels and the channels of all skip connections, in the order of the forward pass."""
        blocks, before, skips = nn.ModuleList(), levels[0].channels, [levels[0].channels]
        for i, level in enumerate(levels):
            widths = [before] + [level.channels] * (self.config["layers_per_block"] - 1)
            block = self._build_level([(width, level.channels) for width in widths], level)
            is_last = i == len(levels) - 1
            block.downsamplers = nn.ModuleList([] if is_last else [Downsample(level.channels)])
            skips += [level.channels] * (len(widths) + (not is_last))
            blocks.append(block)
            before = level.channels
        return blocks, skips

    def _build_middle(self, level: LevelConfig) -> Level:
        middle = self._build_level([(level.channels, level.channels)] * 2, level)
        del middle.attentions[1:]
        return middle

    def _build_up(self, levels: list[LevelConfig], skips: list[int]) -> nn.ModuleList:
        blocks, before, skips = nn.ModuleList(), levels[0].channels, list(skips)
        for i, level in enumerate(levels):
            widths = []
            for _ in range(self.config["layers_per_block"] + 1):
                widths.append((before + skips.pop(), level.channels))
                before = level.channels
            block = self._build_level(widths, level)
            block.upsamplers = nn.ModuleList([] if i == len(levels) - 1 else [Upsample(level.channels)])
            blocks.append(block)
        return blocks

    def _build_level(self, widths: list[tuple[int, int]], level: LevelConfig) -> Level:
        groups, eps = self.config["norm_num_groups"], self.config["norm_eps"]
        time_dim = 4 * self.config["block_out_channels"][0]
        resnets = [ResidualBlock(before, after, time_dim, groups, eps) for before, after in widths]
        context_dim, linear = self.config["cross_attention_dim"], self.config["use_linear_projection"]
        attentions = [
            Transformer(level.channels, context_dim, level.heads, level.depth, groups, linear)
            for _ in (widths if level.depth else [])
        ]
        return Level(resnets, attentions)

    def enable_gradient_checkpointing(self) -> None:
        """Compute the inside of each block again in the backward pass instead of keeping it."""
        self.gradient_checkpointing = True

    def compile_blocks(self) -> None:
        """Compile residual blocks and transformers one by one; blocks of the same shapes share their code."""
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        for module in self.modules():
            if isinstance(module, ResidualBlock | Transformer):
                module.compile(dynamic=False)
        self._predict = torch.compile(self._predict, dynamic=False)  # type: ignore[method-assign]

    @classmethod
    def from_pretrained(cls, folder: Path) -> "UNet":
        """Load a UNet, ours or diffusers', in fp32.

        Raises UserError when the folder cannot be read, for an architecture that is not Stable Diffusion's, or naming
        the first tensors that are missing, unknown or of another shape.
        """
        config = read_json(folder / "config.json")
        with torch.device("meta"):
            unet = build_part(cls, folder / "config.json", config, folder / "config.json")
        assert isinstance(unet, cls)
        state: dict[str, Any] = {}
        for file in find_weights(folder, Path(WEIGHTS).stem).files:
            state |= read_weights(file)
        check_tensors(folder, unet.state_dict(), state)
        tensors = {name: tensor.float() for name, tensor in state.items()}
        check_finite(folder, tensors)
        unet.load_state_dict(tensors, assign=True)
        return unet

    def save_pretrained(self, folder: Path) -> None:
        """Write configuration and weights as diffusers does."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": CLASS, **self.config}
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS, {"format": "pt"})


def one_or_each(embedded: Tensor, rows: int) -> Tensor:
    """Return a time embedding for `rows` samples: one row serves all of them."""
    return embedded if len(embedded) == 1 else repeat_to(embedded, rows)


def sinusoids(timesteps: Tensor, channels: int) -> Tensor:
    """Return cosines and sines of timesteps (B,) at channels / 2 frequencies from 1 to 1/10000: (B, channels) fp32."""
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=timesteps.device, dtype=torch.float32) * (-math.log(10000.0) / half))
    angles = timesteps.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)
