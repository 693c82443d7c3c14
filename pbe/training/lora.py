"""Training adapters instead of weights: LoRA (Hu et al., 2021), by peft.

Adapters change the UNet's attention and first convolution, and the conditioner's mapper and projection. All of these
are linear, so that a trained adapter adds to others and to other painters; v and the norms stay as they are. The layers
that a condition of one token makes useless, queries and keys of attention over it, get none.

peft replaces each of these layers by one with the frozen `base_layer` and the factors `lora_A` and `lora_B`, of which B
starts at zero: before the first step the painter is unchanged.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pbe.method.adapters import BASE, PREFIX, WEIGHTS, Adapter, digest_painter, traits_of
from pbe.method.painter import Painter

ADAPTER = "adapter"  # the folder in a delivered model
_SELF_ATTENTION = r"unet\..*\.attn1\.(to_q|to_k|to_v|to_out\.0)"
_HEAD = r"conditioner\.(proj_out|mapper\.blocks\.\d+\.ff\.net\.(0\.proj|2))"
_ATTENTION_TO_TOKENS = r"(unet\..*\.attn2|conditioner\.mapper\.blocks\.\d+\.attn1)"
_NAME = "default"  # peft's name of an adapter in memory


def adapted_layers(painter: Painter) -> str:
    """Return a regular expression of the layers that get adapters."""
    attention = r"\.(to_v|to_out\.0)" if painter.conditioner.bottleneck else r"\.(to_q|to_k|to_v|to_out\.0)"
    return "|".join([r"unet\.conv_in", _SELF_ATTENTION, _ATTENTION_TO_TOKENS + attention, _HEAD])


def add_adapters(painter: Painter, rank: int, seed: int) -> None:
    """Freeze a painter and give its layers adapters to train, in place; `seed` decides their weights."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=adapted_layers(painter))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, painter, _NAME)


def take_adapter(painter: Painter) -> Adapter | None:
    """Take the adapters out of a painter, which is then its base again; return them, or None if it has none."""
    adapted = {name: module for name, module in painter.named_modules() if hasattr(module, "lora_A")}
    factors, scale = {}, 1.0
    for name, module in adapted.items():
        layer: nn.Module = module.base_layer
        factors[name] = _factor(module, "lora_A"), _factor(module, "lora_B")
        scale = float(module.scaling[_NAME])
        parent, _, child = name.rpartition(".")
        setattr(painter.get_submodule(parent), child, layer)
    return Adapter(Path(ADAPTER), factors, scale, traits_of(painter)) if adapted else None


def _factor(module: nn.Module, name: str) -> Tensor:
    weight: Tensor = getattr(module, name)[_NAME].weight
    return weight.detach().float().cpu()


def write_adapter(painter: Painter, adapter: Adapter, folder: Path) -> None:
    """Write an adapter of a painter, its base, as peft reads it."""
    from peft import LoraConfig

    rank = max(len(down) for down, _ in adapter.factors.values())
    folder.mkdir(parents=True)
    config = LoraConfig(
        r=rank, lora_alpha=round(rank * adapter.scale), target_modules=adapted_layers(painter), inference_mode=True
    )
    config.save_pretrained(str(folder))
    tensors = {}
    for name, (down, up) in adapter.factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = down.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = up.contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt", **adapter.traits, BASE: digest_painter(painter)})
