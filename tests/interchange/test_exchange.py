"""A tiny painter exported and imported through both layouts is the same, and errors in a file are named."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.paint_by_example.image_encoder import PaintByExampleImageEncoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil

from pbe.errors import UserError
from pbe.interchange.architecture import architecture_of
from pbe.interchange.folder import write_published
from pbe.interchange.ldm import from_ldm, read_ldm, to_ldm, write_ldm
from pbe.interchange.mask_channel import keeping
from pbe.method.conditioner import to_pixels
from pbe.method.initialization import build_painter
from pbe.method.painter import Images, Painter
from tests.support.tiny_painter import changed_painter


@pytest.fixture(scope="module")
def ours(backbone: Path) -> Painter:
    return changed_painter(backbone)


@pytest.fixture(scope="module")
def theirs(ours: Painter) -> Painter:
    return keeping(ours)


@pytest.fixture(scope="module")
def file(theirs: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ldm") / "model.ckpt"
    write_ldm(theirs, path)
    return path


@pytest.fixture(scope="module")
def folder(theirs: Painter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published")
    write_published(theirs, path)
    return path


def paint(painter: Painter) -> Images:
    rng = np.random.default_rng(0)
    sources, masks = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), np.zeros((1, 64, 64), np.uint8)
    masks[:, 10:40, 20:50] = 1
    exemplars = rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    return painter.paint(sources, masks, exemplars, num_steps=2, seeds=[0])


def same_tensors(one: Painter, other: Painter) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layout", ["ldm", "published"])
def test_exported_and_imported_it_paints_the_same_bits(theirs: Painter, file: Path, folder: Path, layout: str) -> None:
    again = read_ldm(file) if layout == "ldm" else Painter.from_pretrained(folder)
    assert again.mask_channel == "keep"
    assert again.image_px == 64
    assert same_tensors(again, theirs)
    assert (paint(again) == paint(theirs)).all()


def test_converting_the_mask_channel_changes_the_edge_of_the_picture_alone(ours: Painter, theirs: Painter) -> None:
    """Compare the first convolution on an inverted mask with converted weights against the original."""
    x = torch.randn(1, 9, 16, 16)
    turned = torch.cat([x[:, :8], 1 - x[:, 8:]], 1)
    with torch.no_grad():
        a, b = ours.unet.conv_in(x), theirs.unet.conv_in(turned)
    torch.testing.assert_close(a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-5)
    assert (a - b).abs().max() > 1e-3


def test_the_mapper_agrees_with_the_authors_arithmetic(theirs: Painter) -> None:
    """Their block, written out: x + proj(attention(ln_1 x)), then x + proj(gelu(fc(ln_2 x))); one head, one token."""
    t = to_ldm(theirs)
    pixels = to_pixels(np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    x = theirs.conditioner.tokens(pixels)
    expected = theirs.conditioner(x)
    width = x.shape[-1]

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (width,), t[f"{name}.weight"], t[f"{name}.bias"])

    for block in ["cond_stage_model.mapper.resblocks.0"]:
        qkv = linear(f"{block}.attn.c_qkv", norm(f"{block}.ln_1", x))
        q, k, v = qkv.view(2, 1, 1, 3 * width).split(
            width, -1
        )  # batch, token, head; each head has its q, k, v in a row
        weights = torch.softmax(torch.einsum("bthc,bshc->bhts", q, k) / width**0.5, -1)
        x = x + linear(f"{block}.attn.c_proj", torch.einsum("bhts,bshc->bthc", weights, v).flatten(2))
        x = x + linear(f"{block}.mlp.c_proj", F.gelu(linear(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x))))
    context = linear("proj_out", norm("cond_stage_model.final_ln", x))
    torch.testing.assert_close(context, expected, atol=1e-5, rtol=1e-5)
    assert (expected - theirs.conditioner.proj_out.bias).abs().max() > 0.1


def test_diffusers_and_transformers_load_the_published_parts(theirs: Painter, folder: Path) -> None:
    encoder, info = PaintByExampleImageEncoder.from_pretrained(folder / "image_encoder", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    picture = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor")(picture, return_tensors="pt")
    with torch.no_grad():
        context, v = encoder(pixels["pixel_values"], return_uncond_vector=True)
    expected = theirs.conditioner(theirs.conditioner.tokens(to_pixels(picture[None])))
    torch.testing.assert_close(context, expected.detach(), atol=1e-4, rtol=1e-4)
    assert torch.equal(v, theirs.conditioner.uncond_vector)


def test_the_published_files_load(theirs: Painter, folder: Path, tmp_path: Path) -> None:
    """Pickled weights, an encoder configuration without the size of its projection, and a constant in the weights."""
    write_published(theirs, tmp_path)
    encoder = tmp_path / "image_encoder"
    state = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    state["model.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    torch.save(state, encoder / "pytorch_model.bin")
    config = json.loads((encoder / "config.json").read_text())
    for key in ("proj_size", "bottleneck", "guidance"):
        del config[key]
    (encoder / "config.json").write_text(json.dumps(config))
    for part in ("unet", "vae"):
        weights = tmp_path / part / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["image_px"], index["mask_channel"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = Painter.from_pretrained(tmp_path)
    assert again.mask_channel == "keep"
    assert same_tensors(again, theirs)


def test_missing_unknown_and_misshapen_tensors_are_named(theirs: Painter) -> None:
    tensors = to_ldm(theirs)
    tensors |= {"model_ema.decay": torch.zeros(()), "betas": torch.zeros(1000)}  # ignored
    lacking = {k: v for k, v in tensors.items() if k != "learnable_vector"}
    architecture = architecture_of(theirs)
    with pytest.raises(UserError, match=r"^x\.ckpt: lacks learnable_vector$"):
        from_ldm(lacking, architecture, Path("x.ckpt"))
    with pytest.raises(UserError, match="has unknown cond_stage_model"):
        from_ldm(tensors | {"cond_stage_model.model.ln_final.weight": torch.zeros(1)}, architecture)
    with pytest.raises(UserError, match=r"proj_out\.bias is \(3,\), not \(16,\)"):
        from_ldm(tensors | {"proj_out.bias": torch.zeros(3)}, architecture)
    with pytest.raises(UserError, match=r"lacks .* and \d+ more"):
        from_ldm(tensors)  # the tiny model does not have the authors' architecture


def test_a_missing_tensor_of_a_folder_is_named(theirs: Painter, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "image_encoder" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "uncond_vector"}, file)
    with pytest.raises(UserError, match="image_encoder: lacks uncond_vector"):
        Painter.from_pretrained(tmp_path)


class Callback:
    """An object of a trainer in its checkpoint: unpickling it would copy a file."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def __reduce__(self) -> Any:
        return shutil.copyfile, self.paths


def test_other_objects_in_a_checkpoint_are_ignored_and_never_run(theirs: Painter, file: Path, tmp_path: Path) -> None:
    content = torch.load(file, weights_only=True)
    callbacks = {Callback: {"best": 1.0}, "one": Callback(file, tmp_path / "ran")}
    torch.save(content | {"callbacks": callbacks, "global_step": 3}, tmp_path / "model.ckpt")
    assert same_tensors(read_ldm(tmp_path / "model.ckpt"), theirs)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"model\.ckpt: is damaged, or not a file of weights"):
        read_ldm(tmp_path / "model.ckpt")


def test_a_painter_without_the_bottleneck_is_not_exported(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bottleneck false cannot be exported"):
        write_ldm(build_painter(backbone, 64, 0, bottleneck=False), tmp_path / "model.ckpt")


def test_a_safetensors_file_is_written_and_read_as_such(ours: Painter, tmp_path: Path) -> None:
    file = tmp_path / "model.SAFETENSORS"
    write_ldm(ours, file)
    with safe_open(file, "pt") as opened:
        assert "model.diffusion_model.input_blocks.0.0.weight" in opened.keys()  # noqa: SIM118
    assert same_tensors(read_ldm(file), keeping(ours))


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.file}",)


def test_a_checkpoint_that_runs_a_command_is_refused_without_advice(theirs: Painter, tmp_path: Path) -> None:
    tensors: dict[str, object] = {**to_ldm(theirs), "learnable_vector": Command(tmp_path / "ran")}
    content = {"state_dict": tensors, "pbe_architecture": architecture_of(theirs).to_json()}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=r"model\.ckpt: ") as error:
        read_ldm(tmp_path / "model.ckpt")
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_not_painters_are_named(theirs: Painter, file: Path, tmp_path: Path) -> None:
    tensors, saved = to_ldm(theirs), architecture_of(theirs).to_json()
    nan = {**tensors, "learnable_vector": torch.full_like(tensors["learnable_vector"], torch.nan)}
    for content, words in (
        ([1, 2], "holds no named tensors"),
        ({"state_dict": 3}, "holds no named tensors"),
        ({"state_dict": tensors, "pbe_architecture": "{"}, "pbe_architecture is damaged"),
        ({"state_dict": nan, "pbe_architecture": saved}, "learnable_vector holds NaN or infinite values"),
        (
            {"state_dict": {**tensors, "proj_out.bias": 3}, "pbe_architecture": saved},
            "proj_out.bias is int, not a tensor",
        ),
    ):
        torch.save(content, tmp_path / "model.ckpt")
        with pytest.raises(UserError, match=rf"model\.ckpt: {words}"):
            read_ldm(tmp_path / "model.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"cut\.ckpt: is damaged"):
        read_ldm(tmp_path / "cut.ckpt")
