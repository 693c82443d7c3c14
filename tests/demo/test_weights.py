"""The recipe of the bundled weights: a few steps of each part, and the quality of the weights in data/tiny."""

import dataclasses
import json
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from pbe.demo.scenes import COLOURS, PATTERNS, SHAPES, Attributes, draw_scene
from pbe.demo.weights import resumable
from pbe.demo.weights.__main__ import PARTS
from pbe.demo.weights.clip import MAX_TOKENS, build_tokenizer
from pbe.demo.weights.recipe import Recipe, recipe_key
from pbe.demo.weights.vae import measure_vae
from pbe.method.backbone import check_backbone

pytestmark = pytest.mark.slow

BUNDLED = Path(__file__).parents[2] / "data/tiny"
SHORT = dataclasses.replace(
    Recipe(), num_scenes=24, vae_steps=3, vae_cooldown_from=2, vae_batch=2, clip_steps=2, clip_batch=8,
    tower_steps=2, tower_batch=8,
    classifier_steps=2, classifier_batch=8, prior_steps=2, prior_batch=2, detail_steps=2, detail_batch=2,
    patterns_steps=2, middle_steps=2,
)  # fmt: skip


class KilledError(Exception):
    """Stands for the signal that ends a training."""


@pytest.mark.long
def test_a_training_that_is_killed_and_started_again_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("vae", "clip", "tower", "classifier"):
        monkeypatch.setattr(f"pbe.demo.weights.{module}.NUM_UNSEEN", 24)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name, train_part in PARTS.items():
        train_part(SHORT, whole, tmp_path / "state of whole")
        with monkeypatch.context() as patch:
            kill_after_first_step(patch, name)
            with pytest.raises(KilledError):
                train_part(SHORT, killed, tmp_path / "state of killed")
        train_part(SHORT, killed, tmp_path / "state of killed")
    check_backbone(whole)
    files = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(files) == 5
    assert all((whole / file).read_bytes() == (killed / file).read_bytes() for file in files)


def kill_after_first_step(patch: pytest.MonkeyPatch, part: str) -> None:
    """Have the part save its state after each step, and end after the first."""
    save = resumable._save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        raise KilledError

    module = {"attribute_classifier": "classifier", "detail": "prior", "patterns": "prior", "middle": "prior"}.get(
        part, part
    )
    patch.setattr(f"pbe.demo.weights.{module}.Progress", partial(resumable.Progress, save_every_s=0))
    patch.setattr(resumable, "_save", save_and_die)


def test_the_key_of_a_training_depends_on_its_own_numbers_and_on_what_it_starts_from(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a")
    key = recipe_key(SHORT, "prior", tmp_path)
    assert recipe_key(dataclasses.replace(SHORT, clip_steps=9), "prior", tmp_path) == key
    assert recipe_key(dataclasses.replace(SHORT, prior_steps=9), "prior", tmp_path) != key
    (tmp_path / "weights").write_text("b")
    assert recipe_key(SHORT, "prior", tmp_path) != key


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
