"""CLIP's image tower, faster than transformers runs it and the same up to rounding.

- The last block computes the class token alone, the only one that leaves it: 7 % of ViT-B/32's products.
- On a CPU, matrices are multiplied by oneDNN with weights packed once. For fp32 torch calls MKL, which is slower on
  processors that Intel did not make.
- On a CPU a call has 8 images, the last call filled up: the matrices stay in the cache, and since products depend on
  the number of rows in the last bit, the features of an image do not depend on its batch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

_IMAGES_PER_CALL = 8


class PackedLinear(nn.Module):
    """A linear layer whose weights oneDNN has packed for itself."""

    def __init__(self, layer: nn.Linear, num_rows: int) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), num_rows)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], ""))


def pack(model: CLIPVisionModelWithProjection) -> None:
    """Replace the linear layers of a model on a CPU by packed ones, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    num_tokens = model.vision_model.embeddings.num_positions
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in layers:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, PackedLinear(layer, _IMAGES_PER_CALL * num_tokens))


def embed(model: CLIPVisionModelWithProjection, pixels: Tensor) -> Tensor:
    """Return the projected class tokens: (B, 3, H, W) => (B, D)."""
    if pixels.device.type != "cpu":
        return _embed(model, pixels)
    padding = -len(pixels) % _IMAGES_PER_CALL
    filled = torch.cat([pixels, pixels.new_zeros((padding, *pixels.shape[1:]))])
    return torch.cat([_embed(model, part) for part in filled.split(_IMAGES_PER_CALL)])[: len(pixels)]


def _embed(model: CLIPVisionModelWithProjection, pixels: Tensor) -> Tensor:
    tower: Any = model.vision_model
    tokens = tower.pre_layrnorm(tower.embeddings(pixels))  # (B, T, W)
    *blocks, last = tower.encoder.layers
    for block in blocks:
        tokens = block(tokens, None)
    return torch.as_tensor(model.visual_projection(tower.post_layernorm(_class_token(last, tokens))))


def _class_token(block: Any, tokens: Tensor) -> Tensor:
    """Return the class token after a block, (B, T, W) => (B, W)."""
    attention = block.self_attn
    normalised = block.layer_norm1(tokens)
    query = _heads(attention.q_proj(normalised[:, :1].contiguous()), attention.num_heads)
    key, value = (_heads(project(normalised), attention.num_heads) for project in (attention.k_proj, attention.v_proj))
    attended = F.scaled_dot_product_attention(query, key, value).flatten(1)
    token = tokens[:, 0] + attention.out_proj(attended)
    return torch.as_tensor(token + block.mlp(block.layer_norm2(token)))


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, W) => (B, heads, T, W / heads)"""
    return x.view(*x.shape[:-1], num_heads, -1).transpose(1, 2)
