"""Class names of exemplars: those of the bench, and CLIP's choice against transformers' own zero-shot scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

from pbe.demo.weights.clip import build_tokenizer
from pbe.evaluation.baselines import class_names
from pbe.evaluation.baselines.class_names import COCO_CLASSES, can_name, name_exemplars
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.resizing import stretch
from pbe.evaluation.painting.methods import class_prompts
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD
from tests.support.tiny_models import tiny_tower_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of a small CLIP with random weights."""
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("clip"), build_tokenizer()
    eos = tokenizer.eos_token_id
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=1,
        max_position_embeddings=32, projection_dim=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=eos,
        pad_token_id=eos,
    )  # fmt: skip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=tiny_tower_config().to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(folder)
    return folder


def test_known_names_are_kept_and_need_no_clip(bench: Bench, tmp_path: Path) -> None:
    assert bench.origins is not None
    names = name_exemplars(bench, Path("absent"), tmp_path / "names.json", CPU)
    assert names == {origin.case_id: origin.exemplar_label for origin in bench.origins}
    assert class_prompts(replace(bench, origins=None), names)[0] == f"a {names[0].lower()}"


def test_an_unknown_name_is_the_one_that_transformers_scores_highest(
    bench: Bench, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.origins is not None
    hidden = bench.ids[:5]
    origins = tuple(replace(o, exemplar_label="" if o.case_id in hidden else o.exemplar_label) for o in bench.origins)
    partly = replace(bench, origins=origins)
    names = name_exemplars(partly, clip, tmp_path / "names.json", CPU)

    labels = sorted({origin.exemplar_label for origin in origins} - {""})
    tokens = build_tokenizer()([f"a photo of a {label.lower()}" for label in labels], padding=True, return_tensors="pt")
    images = np.stack([stretch(bench.case(i).exemplar, 32) for i in hidden]) / 255
    pixels = torch.from_numpy((images - CLIP_MEAN) / CLIP_STD).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        scores = CLIPModel.from_pretrained(clip)(**tokens, pixel_values=pixels).logits_per_image
    assert [names[i] for i in hidden] == [labels[int(best)] for best in scores.argmax(1)]
    assert len(names) == len(bench)

    monkeypatch.setattr(class_names, "_choose", None)
    assert name_exemplars(partly, clip, tmp_path / "names.json", CPU) == names  # from the cache


def test_a_bench_without_any_name_is_given_cocos_classes(bench: Bench, clip: Path, tmp_path: Path) -> None:
    names = name_exemplars(replace(bench.head(2), origins=None), clip, tmp_path / "names.json", CPU)
    assert set(names.values()) <= set(COCO_CLASSES)
    assert len(set(COCO_CLASSES)) == 80


def test_only_a_folder_with_both_towers_can_name(clip: Path, model_folder: Path) -> None:
    assert can_name(clip)
    assert not can_name(model_folder / "image_encoder")
    assert not can_name(clip / "absent")
