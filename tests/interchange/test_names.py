"""The authors' architecture at full size, without storage: every tensor has its LDM name, as others translate it."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from pbe.interchange.architecture import AUTHORS, empty_painter
from pbe.interchange.ldm import to_ldm
from pbe.interchange.names import painter_names


@pytest.fixture(scope="module")
def painter():
    return empty_painter(AUTHORS)


@pytest.fixture(scope="module")
def marks(painter):
    """Every LDM tensor, in its shape, filled with a number of its own; expanded, so that none takes memory."""
    return {name: torch.tensor(float(i)).expand(t.shape) for i, (name, t) in enumerate(to_ldm(painter).items())}


def test_it_has_the_papers_sizes(painter):
    parts = (painter.unet, painter.vae, painter.conditioner)
    millions = [round(sum(p.numel() for p in part.parameters()) / 1e6) for part in parts]
    assert millions == [860, 84, 367]


def test_every_tensor_has_one_name(painter):
    ours = [one for parts in painter_names(painter).values() for one in parts]
    assert sorted(ours) == sorted(painter.state_dict())


@pytest.mark.parametrize(
    ("part", "convert"), [("unet", convert_ldm_unet_checkpoint), ("vae", convert_ldm_vae_checkpoint)]
)
def test_diffusers_own_conversion_finds_the_same_tensors(painter, marks, part, convert):
    module = getattr(painter, part)
    theirs = convert(dict(marks), dict(module.config))
    named = {one: marks[name] for name, ours in painter_names(painter).items() for one in ours}
    assert theirs.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert theirs[name].shape == tensor.shape, name
        assert theirs[name].flatten()[0] == named[f"{part}.{name}"].flatten()[0], name


def test_the_conditioner_has_the_authors_names(painter):
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
