"""The two blocks of the UNet, residual and transformer, and the layers between its resolutions.

Names of modules and shapes of weights are diffusers', so that weights of either load into the other. The blocks keep
the memory format of their input: in a channels_last network no layer copies its activations into another layout.

The condition is a single token. Softmax over one key is 1, so that cross attention adds one vector per sample,

    to_out(softmax(q k^T) v) = to_out(to_v(c)),

and needs no query, key or softmax. Longer contexts attend as usual.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pbe.method.row_kernels import Conv2d, Linear, at_each_position, by_row


class ResidualBlock(nn.Module):
    """h = conv(silu(norm(conv(silu(norm(x))) + time))), added to x (He et al., 2016; Ho et al., 2020).

    x (B, C, h, w), embedded time (B, T) or (1, T) => (B, D, h, w). On the way up, x is concatenated with `skip`
    (B, S, h, w).
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, embedded: Tensor, skip: Tensor | None = None) -> Tensor:
        x = x if skip is None else torch.cat([x, skip], 1)
        h = self.conv1(norm_silu(self.norm1, x))
        h = h + self.time_emb_proj(F.silu(embedded))[:, :, None, None]
        h = self.conv2(norm_silu(self.norm2, h))
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return torch.as_tensor(shortcut + h)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v in several heads (Vaswani et al., 2017): (B, N, C) => (B, N, C)."""

    def __init__(self, channels: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(channels, channels, bias=False)
        self.to_k = Linear(context_dim, channels, bias=False)
        self.to_v = Linear(context_dim, channels, bias=False)
        self.to_out = nn.ModuleList([Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Attend among the positions of x; q, k and v are one product."""
        layers = (self.to_q, self.to_k, self.to_v)
        if all(type(layer) is Linear and not layer.packs for layer in layers):
            weight = torch.cat([layer.weight for layer in layers])
            q, k, v = F.linear(x, weight).chunk(3, -1)
        else:  # packed, or replaced by adapters
            q, k, v = (layer(x) for layer in layers)
        return self._attend(q, k, v)

    def to_context(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from the positions of x to the tokens of the context (B, T, D)."""
        return self._attend(self.to_q(x), self.to_k(context), self.to_v(context))

    def to_one_token(self, token: Tensor) -> Tensor:
        """Return what attention to a context of one token, (B, 1, D), is at every position: (B, 1, C)."""
        return by_row(self.to_out[0], by_row(self.to_v, token))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        h = F.scaled_dot_product_attention(*heads)
        return torch.as_tensor(self.to_out[0](h.transpose(1, 2).flatten(2)))


class GatedGelu(nn.Module):
    """x W + b, times gelu(x V + c) (Shazeer, 2020)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return torch.as_tensor(value * F.gelu(gate))


class FeedForward(nn.Module):
    """Two layers with a gate between them; diffusers has dropout at place 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.net = nn.ModuleList([GatedGelu(channels, inner), nn.Identity(), Linear(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nn.Module):
    """Self attention, cross attention and feed-forward layer, each after a layer norm and added to its input."""

    def __init__(self, channels: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_dim, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, N, C), context (R B, T, D) => (R B, N, C): what precedes the context is computed once."""
        x = x + self.attn1(self.norm1(x))
        x = repeat_to(x, len(context))
        if context.shape[1] == 1:
            x = x + self.attn2.to_one_token(context)
        else:
            x = x + self.attn2.to_context(self.norm2(x), context)
        return torch.as_tensor(x + self.ff(self.norm3(x)))


class Transformer(nn.Module):
    """Transformer blocks over the positions of a feature map, added to it: x (B, C, h, w) => (R B, C, h, w).

    proj_in and proj_out are linear maps of each position. Stable Diffusion 1 stores them as 1 x 1 convolutions, version
    2 as linear layers.
    """

    def __init__(
        self, channels: int, context_dim: int, heads: int, depth: int, groups: int, linear_projection: bool
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        self.proj_in = _projection(channels, linear_projection)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_dim, heads) for _ in range(depth)])
        self.proj_out = _projection(channels, linear_projection)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        h = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, h w, C): of a channels_last map this is a view
        h = at_each_position(self.proj_in, h)
        for block in self.transformer_blocks:
            h = block(h, context)
        h = at_each_position(self.proj_out, h)
        change = h.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return torch.as_tensor(repeat_to(x, len(h)) + change)


class Downsample(nn.Module):
    """Halve the resolution by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(x))


class Upsample(nn.Module):
    """Bring a map to `size` by nearest neighbour, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.as_tensor(self.conv(F.interpolate(x, size=size, mode="nearest")))


def norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Return silu(norm(x)) in the memory format of x.

    PyTorch's group norm on a GPU returns NCHW. Without the conversion, which a compiler fuses, the backward pass of the
    next convolution would copy its input into channels_last.
    """
    h = F.silu(norm(x))
    is_channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return h.contiguous(memory_format=torch.channels_last) if is_channels_last else h


def repeat_to(x: Tensor, rows: int) -> Tensor:
    """Return x repeated along the batch until it has `rows` rows."""
    return x if len(x) == rows else x.repeat(rows // len(x), *[1] * (x.ndim - 1))


def _projection(channels: int, linear: bool) -> Linear | Conv2d:
    return Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
