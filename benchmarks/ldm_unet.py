"""The peer of the benchmarks: the arithmetic of the official code's LDM UNet on the weights of our UNet.

It is a reimplementation, and slow where the official code is: group norms in float32 followed by a separate SiLU,
attention as two einsums around a softmax of the whole matrix of weights, heads moved into the batch by copies, cross
attention over a single token, and in training each residual and transformer block computed again in the backward pass,
as the official configuration requests. It shares the weights of our UNet, so that both predictions can be
compared in the memory of one model.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pbe.method.unet import UNet


class LdmUNet(nn.Module):
    """The official UNet; `recompute` checkpoints each block in training, as its training configuration does."""

    def __init__(self, unet: UNet, recompute: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.recompute = recompute

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        unet = self.unet
        embedded = unet.time_embedding(timesteps)
        h = unet.conv_in(x)
        skips = [h]
        for block in unet.down_blocks:
            for i, resnet in enumerate(block.resnets):
                h = self._layer(block, i, resnet, h, embedded, context)
                skips.append(h)
            if block.downsamplers:
                h = block.downsamplers[0].conv(h)
                skips.append(h)
        middle = unet.mid_block
        h = self._run(residual, middle.resnets[0], h, embedded)
        h = self._transform(middle.attentions[0], h, context)
        h = self._run(residual, middle.resnets[1], h, embedded)
        for block in unet.up_blocks:
            for i, resnet in enumerate(block.resnets):
                h = self._layer(block, i, resnet, torch.cat([h, skips.pop()], 1), embedded, context)
            if block.upsamplers:
                h = block.upsamplers[0].conv(F.interpolate(h, scale_factor=2, mode="nearest"))
        return torch.as_tensor(unet.conv_out(F.silu(group_norm32(unet.conv_norm_out, h))))

    def _layer(self, block: Any, i: int, resnet: Any, h: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        h = self._run(residual, resnet, h, embedded)
        attentions = getattr(block, "attentions", None)
        return self._transform(attentions[i], h, context) if attentions else h

    def _transform(self, module: Any, x: Tensor, context: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = module.proj_in(F.group_norm(x, module.norm.num_groups, module.norm.weight, module.norm.bias, 1e-6))
        h = h.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        for block in module.transformer_blocks:
            h = self._run(transformer_block, block, h, context)
        return torch.as_tensor(
            module.proj_out(h.reshape(batch, height, width, channels).permute(0, 3, 1, 2).contiguous()) + x
        )

    def _run(self, function: Any, module: Any, *inputs: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return torch.as_tensor(checkpoint(function, module, *inputs, use_reentrant=False))
        return torch.as_tensor(function(module, *inputs))


def group_norm32(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps).to(x.dtype)


def residual(block: Any, x: Tensor, embedded: Tensor) -> Tensor:
    h = block.conv1(F.silu(group_norm32(block.norm1, x)))
    h = h + block.time_emb_proj(F.silu(embedded))[:, :, None, None]
    h = block.conv2(F.silu(group_norm32(block.norm2, h)))
    return torch.as_tensor((block.conv_shortcut(x) if block.conv_shortcut is not None else x) + h)


def transformer_block(block: Any, x: Tensor, context: Tensor) -> Tensor:
    h = block.norm1(x)
    x = attention(block.attn1, h, h) + x
    x = attention(block.attn2, block.norm2(x), context) + x
    h = block.norm3(x)
    value, gate = block.ff.net[0].proj(h).chunk(2, dim=-1)
    return torch.as_tensor(block.ff.net[2](value * F.gelu(gate)) + x)


def attention(module: Any, x: Tensor, context: Tensor) -> Tensor:
    heads = module.heads
    q, k, v = (split_heads(t, heads) for t in (module.to_q(x), module.to_k(context), module.to_v(context)))
    weights = (torch.einsum("bid,bjd->bij", q, k) * q.shape[-1] ** -0.5).softmax(dim=-1)
    out = torch.einsum("bij,bjd->bid", weights, v)
    batch, length, width = x.shape[0], out.shape[1], out.shape[2]
    merged = out.reshape(batch, heads, length, width).permute(0, 2, 1, 3).reshape(batch, length, heads * width)
    return torch.as_tensor(module.to_out[0](merged))


def split_heads(t: Tensor, heads: int) -> Tensor:
    batch, length, width = t.shape
    return t.reshape(batch, length, heads, width // heads).permute(0, 2, 1, 3).reshape(batch * heads, length, -1)
