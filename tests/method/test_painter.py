"""The painter: which pixels change, seeds, sizes, and its files."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.errors import UserError
from pbe.method.backbone import check_backbone
from pbe.method.initialization import build_painter
from pbe.method.painter import Images, Painter
from pbe.method.pretrained import ZERO_TERMINAL_SNR
from tests.support.tiny_models import WIDTH
from tests.support.tiny_painter import changed_painter


@pytest.fixture(scope="module")
def painter(backbone: Path) -> Painter:
    return build_painter(backbone, 64, 0)


def case(n: int = 2, height: int = 64, width: int = 64) -> tuple[Images, Images, Images]:
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    masks = np.zeros((n, height, width), np.uint8)
    masks[:, 10:40, 20:50] = 1
    return sources, masks, rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def test_only_masked_pixels_change(painter: Painter) -> None:
    sources, masks, exemplars = case()
    out = painter.paint(sources, masks, exemplars, num_steps=2, seeds=[0, 1])
    assert (out[masks == 0] == sources[masks == 0]).all()
    assert (out[masks == 1] != sources[masks == 1]).any()


def test_the_same_seed_paints_the_same_bits_and_another_seed_others(painter: Painter) -> None:
    a, b = (painter.paint(*case(), num_steps=2, seeds=[3, 4]) for _ in range(2))
    assert (a == b).all()
    assert (painter.paint(*case(), num_steps=2, seeds=[5, 4])[0] != a[0]).any()


def test_it_paints_pictures_of_other_sizes(painter: Painter) -> None:
    assert painter.paint(*case(1, 96, 128), num_steps=1, seeds=[0]).shape == (1, 96, 128, 3)


def test_in_bf16_the_painting_differs_little_and_only_where_masked(backbone: Path) -> None:
    sources, masks, exemplars = case()
    exact = build_painter(backbone, 64, 0).paint(sources, masks, exemplars, num_steps=2, seeds=[0, 1])
    painter = build_painter(backbone, 64, 0).place(torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in painter.parameters()} == {torch.bfloat16}
    out = painter.paint(sources, masks, exemplars, num_steps=2, seeds=[0, 1])
    assert (out[masks == 0] == sources[masks == 0]).all()
    difference = np.abs(out.astype(int) - exact)
    assert 0 < difference.mean() < 5


HOLES = {
    "inside": np.s_[10:40, 20:50],
    "left": np.s_[10:40, :20],
    "top": np.s_[:20, 10:40],
    "corner": np.s_[:30, :30],
    "right": np.s_[10:40, 44:],
    "bottom": np.s_[44:, 10:40],
    "all": np.s_[:, :],
}


@pytest.mark.parametrize("hole", HOLES.values(), ids=list(HOLES))
def test_the_masked_pixels_of_the_source_have_no_influence(painter: Painter, hole: tuple[slice, slice]) -> None:
    sources, masks, exemplars = case()
    masks[:] = 0
    masks[:, *hole] = 1
    other = np.where(masks[..., None] == 1, np.uint8(9), sources)
    a = painter.paint(sources, masks, exemplars, num_steps=1, seeds=[0, 1])
    b = painter.paint(other, masks, exemplars, num_steps=1, seeds=[0, 1])
    assert (a == b).all()


def test_a_mask_smaller_than_a_latent_is_painted_from_the_exemplar(painter: Painter) -> None:
    sources, masks, exemplars = case()
    masks[:] = 0
    masks[:, 9:15, 9:15] = 1
    a = painter.paint(sources, masks, exemplars, num_steps=2, seeds=[0, 1])
    b = painter.paint(sources, masks, exemplars[::-1].copy(), num_steps=2, seeds=[0, 1])
    assert (a[masks == 1] != b[masks == 1]).any()


def test_saved_and_loaded_it_paints_the_same_bits(painter: Painter, tmp_path: Path) -> None:
    painter.save_pretrained(tmp_path)
    expected = painter.paint(*case(), num_steps=2, seeds=[0, 1])
    again = Painter.from_pretrained(tmp_path)
    assert (again.paint(*case(), num_steps=2, seeds=[0, 1]) == expected).all()
    assert again.image_px == 64


def test_a_saved_painter_does_not_hold_the_path_of_its_parts(painter: Painter, backbone: Path, tmp_path: Path) -> None:
    painter.save_pretrained(tmp_path / "a")
    Painter.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*") if f.is_file())
    assert [f for f in files if (tmp_path / "a" / f).read_bytes() != (tmp_path / "b" / f).read_bytes()] == []
    assert [f for f in files if f.suffix == ".json" and str(backbone) in (tmp_path / "a" / f).read_text()] == []


def test_embeddings_have_unit_norm(painter: Painter) -> None:
    embedded = painter.conditioner.embed(case()[0])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)


def test_v_starts_as_the_priors_empty_caption(painter: Painter, backbone: Path) -> None:
    """Compute the text tower's state at the end token of the empty caption from its last hidden states."""
    tower = CLIPTextModel.from_pretrained(backbone / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(backbone / "tokenizer")
    tokens = tokenizer([""], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    end = tokens["input_ids"][0].tolist().index(tokenizer.eos_token_id)
    with torch.no_grad():
        states = tower(**tokens).last_hidden_state
    v = painter.conditioner.uncond_vector
    assert v.shape == (1, 1, WIDTH)
    torch.testing.assert_close(v[0, 0].detach(), states[0, end])
    other = build_painter(backbone, 64, 0, prior=False).conditioner.uncond_vector
    assert (v - other).abs().max() > 0.1  # without the prior v is random


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance_scale": -1.0}, "guidance scale -1.0 is negative"),
        ({"num_steps": 0}, "number of steps 0"),
        ({"seeds": [1]}, "2 sources, 2 exemplars and 1 seeds"),
    ],
)
def test_wrong_arguments_are_named(painter: Painter, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        painter.paint(*case(), **{"num_steps": 1, "seeds": [0, 1]} | change)


def test_a_mask_of_another_size_is_refused(painter: Painter) -> None:
    sources, masks, exemplars = case()
    with pytest.raises(ValueError, match=r"masks of shape \(2, 32, 64\)"):
        painter.paint(sources, masks[:, :32], exemplars, seeds=[0, 1])


def test_a_missing_part_is_named(tmp_path: Path, painter: Painter) -> None:
    with pytest.raises(UserError, match=r"not a model .model_index\.json is missing"):
        Painter.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match="lacks its part unet"):
        Painter.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="backbone lacks its part unet"):
        check_backbone(tmp_path)


def test_sixteen_threads_on_one_painter_paint_the_bits_of_sixteen_calls_in_turn(painter: Painter) -> None:
    def paint(seed: int) -> Images:
        return painter.paint(*case(1), num_steps=3, guidance_scale=1 + seed % 3, seeds=[seed])

    alone = [paint(seed) for seed in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(paint, range(16)))
    assert [np.array_equal(one, other) for one, other in zip(alone, together, strict=True)] == [True] * 16
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in painter.modules())


def test_a_painter_with_zero_terminal_snr_paints_from_the_velocity_and_survives_saving(
    backbone: Path, tmp_path: Path
) -> None:
    painter = changed_painter(backbone)
    config = painter.scheduler.config
    painter.set_scheduler(DDIMScheduler.from_config(config, **ZERO_TERMINAL_SNR, timestep_spacing="trailing"))
    painter.save_pretrained(tmp_path)
    again = Painter.from_pretrained(tmp_path)
    assert again.predicts_velocity
    assert again.alphas_cumprod[-1] == 2.0**-24
    painted = again.paint(*case(1), num_steps=3, seeds=[0])
    assert (painted == painter.paint(*case(1), num_steps=3, seeds=[0])).all()
    stock = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    torch.testing.assert_close(stock.alphas_cumprod[:-1], again.alphas_cumprod[:-1], rtol=2e-3, atol=1e-7)
    assert json.loads((tmp_path / "model_index.json").read_text())["scheduler"] == ["diffusers", "DDIMScheduler"]
