"""LDM names of the authors' architecture at full size, without storage, and of random small architectures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pbe.interchange.architecture import AUTHORS, Architecture, architecture_of, empty_painter
from pbe.interchange.ldm import from_ldm, to_ldm
from pbe.interchange.names import painter_names
from pbe.method.painter import Painter

Convert = Callable[..., dict[str, Tensor]]
CONVERSIONS = [("unet", convert_ldm_unet_checkpoint), ("vae", convert_ldm_vae_checkpoint)]


@pytest.fixture(scope="module")
def painter() -> Painter:
    return empty_painter(AUTHORS)


def number_tensors(painter: Painter) -> dict[str, Tensor]:
    """Return every LDM tensor in its shape, filled with its own number; expanded, so that none takes memory."""
    return {name: torch.tensor(float(i)).expand(t.shape) for i, (name, t) in enumerate(to_ldm(painter).items())}


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Draw the architecture of a small painter: any number of levels and layers, attention at any level but one."""
    levels = draw(st.integers(2, 4))
    attends = draw(st.lists(st.booleans(), min_size=levels, max_size=levels).filter(any))
    down = [f"{'CrossAttn' * attend}DownBlock2D" for attend in attends]
    up = [f"{'CrossAttn' * attend}UpBlock2D" for attend in reversed(attends)]
    vae_levels = draw(st.integers(1, 4))
    width = draw(st.sampled_from([8, 16]))
    unet = {
        "sample_size": 8,
        "in_channels": 9,
        "out_channels": 4,
        "block_out_channels": [8 * draw(st.integers(1, 3)) for _ in range(levels)],
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": draw(st.integers(1, 3)),
        "cross_attention_dim": width,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    vae = {
        "block_out_channels": [4 * draw(st.integers(1, 2)) for _ in range(vae_levels)],
        "down_block_types": ["DownEncoderBlock2D"] * vae_levels,
        "up_block_types": ["UpDecoderBlock2D"] * vae_levels,
        "layers_per_block": draw(st.integers(1, 2)),
        "latent_channels": 4,
        "norm_num_groups": 2,
        "sample_size": 64,
    }
    tower = {
        "hidden_size": width,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": draw(st.integers(1, 15)),
        "image_size": 32,
        "patch_size": 16,
        "projection_dim": 8,
    }
    return Architecture(unet, vae, tower, AUTHORS.scheduler, width, 64)


def check_every_tensor_has_one_name(painter: Painter) -> None:
    ours = [one for parts in painter_names(painter).values() for one in parts]
    assert sorted(ours) == sorted(painter.state_dict())


def check_conversion(painter: Painter, part: str, convert: Convert) -> None:
    """diffusers' own conversion finds the tensor with the same number under each of our names."""
    marks = number_tensors(painter)
    module = getattr(painter, part)
    converted = convert(dict(marks), dict(module.config))
    named = {one: marks[name] for name, ours in painter_names(painter).items() for one in ours}
    assert converted.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert converted[name].shape == tensor.shape, name
        assert converted[name].flatten()[0] == named[f"{part}.{name}"].flatten()[0], name


def test_the_authors_painter_has_the_papers_sizes(painter: Painter) -> None:
    parts = (painter.unet, painter.vae, painter.conditioner)
    millions = [round(sum(p.numel() for p in part.parameters()) / 1e6) for part in parts]
    assert millions == [860, 84, 367]


def test_every_tensor_of_the_authors_painter_has_one_name(painter: Painter) -> None:
    check_every_tensor_has_one_name(painter)


@pytest.mark.parametrize(("part", "convert"), CONVERSIONS)
def test_diffusers_own_conversion_finds_the_same_tensors(painter: Painter, part: str, convert: Convert) -> None:
    check_conversion(painter, part, convert)


@settings(max_examples=15, deadline=None)
@given(architectures())
def test_names_of_random_architectures(architecture: Architecture) -> None:
    painter = empty_painter(architecture)
    check_every_tensor_has_one_name(painter)
    for part, convert in CONVERSIONS:
        check_conversion(painter, part, convert)


@settings(max_examples=10, deadline=None)
@given(architectures(), st.integers(0, 1000))
def test_random_architectures_return_from_ldm_names_unchanged(architecture: Architecture, seed: int) -> None:
    empty = empty_painter(architecture)
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {k: torch.randn(t.shape, generator=generator) for k, t in empty.state_dict().items()}
    empty.load_state_dict(state, assign=True)
    again = from_ldm(to_ldm(empty), architecture_of(empty))
    assert again.mask_channel == "keep"
    loaded = again.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_the_conditioner_has_the_authors_names(painter: Painter) -> None:
    """Their modules: an embedder with tower, mapper and layer norm, and beside it a projection and v."""
    names = {n for n in to_ldm(painter) if not n.startswith(("model.diffusion_model.", "first_stage_model."))}
    block = [f"{layer}.{p}" for layer in ("attn.c_qkv", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
             for p in ("weight", "bias")]  # fmt: skip
    tower = "cond_stage_model.transformer.vision_model."
    assert {n for n in names if ".mapper." in n} == {
        f"cond_stage_model.mapper.resblocks.{i}.{name}" for i in range(5) for name in block
    }
    assert {n for n in names if not n.startswith("cond_stage_model.")} == {
        "proj_out.weight", "proj_out.bias", "learnable_vector",
    }  # fmt: skip
    assert {f"{tower}embeddings.class_embedding", f"{tower}embeddings.position_ids", f"{tower}pre_layrnorm.weight",
            f"{tower}encoder.layers.23.self_attn.q_proj.weight", f"{tower}post_layernorm.bias",
            "cond_stage_model.final_ln.weight"} <= names  # fmt: skip
    shapes = {n: tuple(t.shape) for n, t in to_ldm(painter).items()}
    assert shapes["cond_stage_model.mapper.resblocks.4.attn.c_qkv.weight"] == (3072, 1024)
    assert shapes["model.diffusion_model.input_blocks.0.0.weight"] == (320, 9, 3, 3)
    assert shapes["first_stage_model.decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
