"""The recipe of the bundled weights: a few steps of each part, and the quality of the weights in data/tiny."""

import dataclasses
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from pbe.demo.scenes import COLOURS, PATTERNS, SHAPES, Attributes, draw_scene
from pbe.demo.weights.__main__ import PARTS
from pbe.demo.weights.clip import MAX_TOKENS, build_tokenizer
from pbe.demo.weights.recipe import Recipe
from pbe.demo.weights.vae import measure_vae
from pbe.method.backbone import check_backbone

pytestmark = pytest.mark.slow

BUNDLED = Path(__file__).parents[2] / "data/tiny"
SHORT = dataclasses.replace(
    Recipe(), num_scenes=24, vae_steps=3, vae_cooldown_from=2, vae_batch=2, clip_steps=2, clip_batch=8,
    classifier_steps=2, classifier_batch=8, prior_steps=2, prior_batch=2,
)  # fmt: skip


def test_the_recipe_trains_a_complete_backbone_with_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("vae", "clip", "classifier"):
        monkeypatch.setattr(f"pbe.demo.weights.{module}.NUM_UNSEEN", 24)
    for name in ("a", "b"):
        for train_part in PARTS.values():
            train_part(SHORT, tmp_path / name)
    check_backbone(tmp_path / "a")
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.safetensors")]
    assert len(files) == 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_the_bundled_vae_reconstructs_unseen_scenes_with_more_than_26_db() -> None:
    vae = AutoencoderKL.from_pretrained(BUNDLED / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    rng = np.random.default_rng(4242)
    scenes = [draw_scene(rng) for _ in range(64)]
    assert measure_vae(vae, scenes, rng)["psnr_db"] > 26


def test_the_bundled_weights_have_less_than_15_mb() -> None:
    assert sum(p.stat().st_size for p in BUNDLED.rglob("*") if p.is_file()) < 15_000_000


def test_the_bundled_prior_is_a_text_to_image_model() -> None:
    assert UNet2DConditionModel.load_config(BUNDLED / "unet")["in_channels"] == 4


def test_the_record_has_the_recipe_and_the_quality_of_each_part() -> None:
    record = json.loads((BUNDLED / "recipe.json").read_text())
    assert set(record["quality"]) == set(PARTS)
    assert record["recipe"] == dataclasses.asdict(Recipe())


def test_every_caption_has_one_token_for_each_word_and_none_is_truncated() -> None:
    tokenizer = build_tokenizer()
    captions = {
        Attributes(shape, colour, pattern, second).caption
        for shape, colour, pattern, second in product(SHAPES, COLOURS, PATTERNS, COLOURS)
    }
    encoded = {caption: tokenizer(caption)["input_ids"] for caption in captions}
    assert all(len(ids) == len(caption.split()) + 2 <= MAX_TOKENS for caption, ids in encoded.items())
    assert len({tuple(ids) for ids in encoded.values()}) == len(captions)


def test_the_bundled_tokenizer_is_that_of_the_recipe() -> None:
    assert CLIPTokenizer.from_pretrained(BUNDLED / "tokenizer").get_vocab() == build_tokenizer().get_vocab()
