"""Our UNet against diffusers': the same weights, files and predictions, in every block and both memory layouts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from pbe.errors import UserError
from pbe.method.unet import UNet, sinusoids
from pbe.method.unet_blocks import ResidualBlock, Transformer
from tests.support.tiny_models import WIDTH, tiny_unet

BASE: dict[str, Any] = {
    "sample_size": 16, "in_channels": 9, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "cross_attention_dim": WIDTH, "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1": {},
    "attention below": {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]},
    "Stable Diffusion 2": {"use_linear_projection": True, "attention_head_dim": [2, 4], "upcast_attention": True},
    "deep": {"layers_per_block": 2, "transformer_layers_per_block": [2, 3]},
    "three levels": {"block_out_channels": [8, 16, 16],
                     "down_block_types": ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
                     "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2},
    "one level": {"block_out_channels": [8], "down_block_types": ["CrossAttnDownBlock2D"],
                  "up_block_types": ["CrossAttnUpBlock2D"]},
}  # fmt: skip
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def pair(variant: str) -> tuple[UNet, UNet2DConditionModel]:
    """Return our UNet and diffusers' with the same random weights."""
    torch.manual_seed(0)
    stock = UNet2DConditionModel(**BASE | VARIANTS[variant]).eval()
    ours = UNet(dict(stock.config)).eval()
    ours.load_state_dict(stock.state_dict())
    return ours, stock


def inputs(num_tokens: int = 1, side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 9, side, side, generator=generator)
    return latents, torch.tensor([3, 500, 999]), torch.randn(3, num_tokens, WIDTH, generator=generator)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_tokens", [1, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_equal_diffusers(variant: str, num_tokens: int, layout: torch.memory_format) -> None:
    ours, stock = pair(variant)
    latents, timesteps, context = inputs(num_tokens)
    expected = stock(latents, timesteps, context).sample
    predicted = ours.to(memory_format=layout)(latents.to(memory_format=layout), timesteps, context)
    torch.testing.assert_close(predicted, expected, atol=1e-5, rtol=1e-5)
    assert predicted.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_diffusers(variant: str) -> None:
    ours, stock = pair(variant)
    latents, timesteps, context = inputs(5)
    ours(latents, timesteps, context).square().sum().backward()
    stock(latents, timesteps, context).sample.square().sum().backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_equals_diffusers_and_keeps_the_layout(variant: str, layout: torch.memory_format) -> None:
    ours, stock = pair(variant)
    blocks = {
        name: m for name, m in stock.named_modules() if type(m).__name__ in ("ResnetBlock2D", "Transformer2DModel")
    }
    compared = {name: m for name, m in ours.named_modules() if isinstance(m, ResidualBlock | Transformer)}
    assert blocks.keys() == compared.keys()
    generator = torch.Generator().manual_seed(2)
    for name, block in compared.items():
        norm = block.norm1 if isinstance(block, ResidualBlock) else block.norm
        x = torch.randn(2, norm.num_channels, 8, 8, generator=generator)
        if isinstance(block, ResidualBlock):
            second = torch.randn(2, block.time_emb_proj.in_features, generator=generator)
            expected = blocks[name](x, second)
        else:
            second = torch.randn(2, 1, WIDTH, generator=generator)
            expected = blocks[name](x, encoder_hidden_states=second, return_dict=False)[0]
        out = block.to(memory_format=layout)(x.to(memory_format=layout), second)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5, msg=name)
        assert out.is_contiguous(memory_format=layout), name


@pytest.mark.parametrize("num_tokens", [1, 7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_contexts_run_the_layers_before_the_context_once(variant: str, num_tokens: int) -> None:
    ours, stock = pair(variant)
    latents, timesteps, context = inputs(num_tokens)
    both = torch.cat([context, context.flip(0) + 1])
    expected = stock(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), both).sample
    rows: list[int] = []
    count = lambda module, args: rows.append(len(args[0]))  # noqa: E731
    ours.conv_in.register_forward_pre_hook(count)
    first = next(m for m in ours.modules() if isinstance(m, Transformer))
    first.transformer_blocks[0].attn1.register_forward_pre_hook(count)
    torch.testing.assert_close(ours(latents, timesteps, both), expected, atol=1e-5, rtol=1e-5)
    assert rows == [3, 3]


def test_odd_sides_equal_diffusers() -> None:
    ours, stock = pair("three levels")
    latents, timesteps, context = inputs(side=18)
    torch.testing.assert_close(ours(latents, timesteps, context), stock(latents, timesteps, context).sample,
                               atol=1e-5, rtol=1e-5)  # fmt: skip


def test_checkpointed_blocks_have_the_same_gradients() -> None:
    ours, _ = pair("deep")
    latents, timesteps, context = inputs()
    ours(latents, timesteps, context).square().sum().backward()
    expected = {name: p.grad for name, p in ours.named_parameters()}
    ours.zero_grad(set_to_none=True)
    ours.enable_gradient_checkpointing()
    ours(latents, timesteps, context).square().sum().backward()
    for name, parameter in ours.named_parameters():
        gradient = expected[name]
        assert parameter.grad is None if gradient is None else torch.equal(parameter.grad, gradient), name


def test_replaced_projections_are_called() -> None:
    """An adapter around a projection decides its output; the product of q, k and v must not go past it."""

    class Doubled(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base
            self.weight = base.weight

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(2 * self.base(x))

    ours, stock = pair("Stable Diffusion 1")
    latents, timesteps, context = inputs()
    for unet in (ours, stock):
        attention = unet.mid_block.attentions[0].transformer_blocks[0].attn1
        attention.to_v = Doubled(attention.to_v)
    torch.testing.assert_close(ours(latents, timesteps, context), stock(latents, timesteps, context).sample,
                               atol=1e-5, rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_loads_what_the_other_saves(variant: str, tmp_path: Path) -> None:
    ours, stock = pair(variant)
    latents, timesteps, context = inputs()
    expected = stock(latents, timesteps, context).sample
    ours.save_pretrained(tmp_path / "ours")
    theirs, info = UNet2DConditionModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(theirs(latents, timesteps, context).sample, expected)
    stock.save_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(UNet.from_pretrained(tmp_path / "theirs")(latents, timesteps, context), expected,
                               atol=1e-5, rtol=1e-5)  # fmt: skip


def test_equal_unets_are_equal_files(tmp_path: Path) -> None:
    tiny_unet().save_pretrained(tmp_path / "a")
    UNet.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, r"act_fn is 'gelu'; only 'silu' is supported"),
        ({"class_embed_type": "timestep"}, r"class_embed_type is 'timestep'; only None"),
        ({"a_new_key": 3}, r"a_new_key is 3; this key is not known"),
        ({"layers_per_block": [1, 2]}, r"layers_per_block is \[1, 2\]; it must be one whole number"),
        ({"up_block_types": ["UpBlock2D"]}, r"up_block_types has 1 entries for 2 block_out_channels"),
        (
            {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]},
            r"down_block_types has 'AttnDownBlock2D'; supported",
        ),
        ({"attention_head_dim": [1, 2, 4]}, r"attention_head_dim has 3 entries for 2 block_out_channels"),
    ],
)
def test_other_architectures_are_refused_by_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNet(BASE | change)


def test_sinusoids_are_cosines_and_sines_of_falling_frequencies() -> None:
    waves = sinusoids(torch.tensor([0, 10]), 4)
    angles = torch.tensor([10.0, 10.0 * 10000**-0.5])
    torch.testing.assert_close(waves[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(waves[1], torch.cat([angles.cos(), angles.sin()]))


def test_bf16_stays_within_its_precision() -> None:
    ours, _ = pair("deep")
    latents, timesteps, context = inputs()
    expected = ours(latents, timesteps, context)
    predicted = ours.bfloat16()(latents, timesteps, context)
    assert predicted.dtype == torch.bfloat16
    assert (predicted.float() - expected).norm() / expected.norm() < 2e-2
