"""The feature cache: exact where it runs the whole UNet or nothing deep has changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pbe.method.feature_cache import FeatureCache
from pbe.method.unet import UNet
from tests.support.tiny_painter import changed_painter

CONFIG = {
    "sample_size": 8,
    "in_channels": 9,
    "block_out_channels": (8, 16),
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(CONFIG).eval()


def draw(seed: int, rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 9, 8, 8, generator=generator)
    return latents, torch.full((1,), 900 - 100 * seed), torch.randn(rows, 1, 8, generator=generator)


@torch.inference_mode()
def test_every_call_is_the_unets_with_a_cache_of_one(unet: UNet) -> None:
    cached = FeatureCache(unet, every=1)
    for seed in range(3):
        assert torch.equal(cached(*draw(seed, 4)), unet(*draw(seed, 4)))


@torch.inference_mode()
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("rows", [2, 4])
def test_a_call_with_the_same_inputs_is_the_unets(unet: UNet, num_layers: int, rows: int) -> None:
    cached = FeatureCache(unet, 2, num_layers)
    whole, shallow = (cached(*draw(0, rows)) for _ in range(2))
    assert torch.equal(whole, unet(*draw(0, rows)))
    torch.testing.assert_close(shallow, whole)


@torch.inference_mode()
def test_only_every_third_call_runs_the_middle(unet: UNet) -> None:
    cached, deep = FeatureCache(unet, every=3), []

    def count(module: nn.Module, inputs: object) -> None:
        deep.append(call)

    handle = unet.mid_block.resnets[0].register_forward_pre_hook(count)
    for call in range(7):
        out = cached(*draw(call))
        assert torch.equal(out, unet_alone(unet, call, deep)) == (call % 3 == 0)
    handle.remove()
    assert deep == [0, 3, 6]


def unet_alone(unet: UNet, call: int, deep: list[int]) -> Tensor:
    """Return the UNet's prediction without counting it."""
    before = list(deep)
    out = unet(*draw(call))
    deep[:] = before
    return torch.as_tensor(out)


@torch.inference_mode()
def test_another_number_of_contexts_runs_the_whole_unet(unet: UNet) -> None:
    cached = FeatureCache(unet, every=100)
    cached(*draw(0, 4))
    assert torch.equal(cached(*draw(1, 2)), unet(*draw(1, 2)))


@pytest.mark.parametrize(("every", "num_layers"), [(0, 1), (2, 0), (2, 4)])
def test_an_impossible_cache_is_named(unet: UNet, every: int, num_layers: int) -> None:
    with pytest.raises(ValueError, match=f"every {every}, num_layers {num_layers}"):
        FeatureCache(unet, every, num_layers)


def test_a_painter_takes_a_cache(backbone: Path) -> None:
    painter = changed_painter(backbone)
    rng, side = np.random.default_rng(0), 64
    sources, exemplars = rng.integers(0, 256, (2, 1, side, side, 3), dtype=np.uint8)
    masks = np.zeros((1, side, side), np.uint8)
    masks[:, 16:48, 16:48] = 1
    whole, kept = (
        painter.paint(sources, masks, exemplars, num_steps=4, sampler="ddim", seeds=[0], cache_every=n) for n in (1, 3)
    )
    assert (whole != kept).any()
    assert (kept[masks == 0] == sources[masks == 0]).all()
