"""The conditioner (section 3.2): its tokens, its frozen tower, and its files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pbe.errors import UserError
from pbe.method.conditioner import Conditioner, to_pixels
from pbe.method.painter import Images
from tests.support.tiny_models import WIDTH, tiny_tower_config


def make(context_dim: int = WIDTH) -> Conditioner:
    torch.manual_seed(0)
    return Conditioner(tiny_tower_config(), context_dim).eval()


def exemplars(n: int = 3, side: int = 32) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_an_exemplar_becomes_one_token() -> None:
    conditioner = make(24)
    token = conditioner.tokens(to_pixels(exemplars()))
    assert token.shape == (3, 1, WIDTH)
    assert conditioner(token).shape == (3, 1, 24)


def test_the_tower_is_frozen_and_the_mapper_learns() -> None:
    conditioner = make(24)
    conditioner(conditioner.tokens(to_pixels(exemplars()))).square().mean().backward()
    assert all(p.grad is None for p in conditioner.model.parameters())
    assert all(p.grad is not None for n, p in conditioner.named_parameters() if n.startswith(("proj_out", "mapper")))


def test_there_is_one_mapper_block_for_every_five_layers() -> None:
    assert len(make().mapper.blocks) == 1


def test_it_starts_as_the_normalised_class_token_where_the_widths_agree() -> None:
    conditioner = make()
    token = conditioner.tokens(to_pixels(exemplars()))
    expected = torch.nn.functional.layer_norm(token, (WIDTH,))
    torch.testing.assert_close(conditioner(token), expected)


def test_saved_and_loaded_it_gives_the_same_context(tmp_path: Path) -> None:
    conditioner = make(24)
    conditioner.save_pretrained(tmp_path)
    again = Conditioner.from_pretrained(tmp_path)
    token = conditioner.tokens(to_pixels(exemplars()))
    assert torch.equal(again(again.tokens(to_pixels(exemplars()))), conditioner(token))
    assert torch.equal(again.uncond_vector, conditioner.uncond_vector)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an image encoder"):
        Conditioner.from_pretrained(tmp_path)


def test_pixels_run_from_minus_one_to_one() -> None:
    images = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])
    pixels = to_pixels(images, 8)
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels[0].unique().tolist() == [-1.0]
    assert pixels[1].unique().tolist() == [1.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_features_and_tokens_stay_float32(dtype: torch.dtype) -> None:
    exact, half = make(24), make(24).to(dtype)
    assert half.embed(exemplars()).dtype == np.float32
    np.testing.assert_allclose(half.embed(exemplars()), exact.embed(exemplars()), atol=0.02)
    tokens = half.tokens(to_pixels(exemplars()))
    assert tokens.dtype == torch.float32
    assert half(tokens).dtype == dtype
    half.bottleneck = False
    assert half.tokens(to_pixels(exemplars())).dtype == torch.float32
