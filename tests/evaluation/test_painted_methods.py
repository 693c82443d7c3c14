"""Baselines that paint with a model: inpainting by text with the prior, and diffusers' own pipeline."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from pbe.errors import UserError
from pbe.evaluation.baselines.stock import StockPainter, load_pipeline
from pbe.evaluation.baselines.text_inpainting import TextEncoder, TextPainter
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.painting.methods import PAINTED_METHODS, Models, captions, check_methods, class_prompts
from pbe.evaluation.painting.windows import PaintSettings, Request, Squares, in_calls
from pbe.interchange.folder import write_published
from pbe.method.initialization import build_painter, empty_context
from pbe.method.painter import Painter
from pbe.runtime.code_digest import code_modules
from tests.support.tiny_models import write_backbone
from tests.support.tiny_painter import changed_painter

SETTINGS = PaintSettings(
    "cpu", "fp32", sampler="plms", num_steps=2, guidance_interval=None, max_magnification=1.0, call_size=3
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def model(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    changed_painter(backbone).save_pretrained(folder)
    return folder


def requests(number: int, text: str = "a star") -> list[Request]:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 16:40] = 1
    cases = [
        Case(i, *(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), mask, rng.integers(0, 256, (40, 32, 3), np.uint8)))
        for i in range(number)
    ]
    return [Request(case, seed=case.id, text=text) for case in cases]


def test_calls_have_one_size_and_the_last_is_filled_up() -> None:
    seen: list[int] = []

    def paint(rows: Squares, numbers: Squares) -> Squares:
        seen.append(len(rows))
        np.testing.assert_array_equal(rows[:, 0], numbers)
        return rows + 1

    rows = np.arange(14).reshape(7, 2)
    np.testing.assert_array_equal(in_calls(paint, 3, rows, rows[:, 0]), rows + 1)
    assert seen == [3, 3, 3]


def test_the_text_tower_gives_all_states_or_the_end_token_alone(backbone: Path) -> None:
    tokens = CLIPTokenizer.from_pretrained(backbone / "tokenizer")("a star", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = CLIPTextModel.from_pretrained(backbone / "text_encoder")(input_ids=tokens)
    every = TextEncoder(backbone, all_tokens=True)(["a star", "a red heart"])
    assert every.shape[0] == 2
    assert every.shape[1] > tokens.shape[1]  # padded
    torch.testing.assert_close(every[:1, : tokens.shape[1]], states.last_hidden_state)
    end = TextEncoder(backbone, all_tokens=False)
    torch.testing.assert_close(end(["a star"])[:, 0], states.pooler_output)
    torch.testing.assert_close(end([""]), empty_context(backbone))


def test_inpainting_by_text_paints_what_the_prior_says_of_the_words(backbone: Path) -> None:
    """With the exemplar's context in place of a text, the prior paints what the painter at step 0 paints."""
    painter, (request, *_) = build_painter(backbone, 64, 0), requests(1)
    plain = np.full_like(request.case.source, 90)  # a picture without grain
    request = request._replace(case=replace(request.case, source=plain))
    text = TextPainter.load(backbone, 64, SETTINGS)
    star, again = (text([request], 5.0)[0] for _ in range(2))
    np.testing.assert_array_equal(star, again)
    np.testing.assert_array_equal(star[request.case.mask == 0], request.case.source[request.case.mask == 0])
    assert (text([request._replace(text="a red heart")], 5.0)[0] != star).any()
    assert (text([request._replace(seed=1)], 5.0)[0] != star).any()
    encoder = TextEncoder(backbone, all_tokens=True)
    arrays = (request.case.source[None], request.case.mask[None])
    expected = painter.paint_context(
        *arrays, encoder(["a star"]), encoder([""]), guidance_scale=5.0, num_steps=2, seeds=[0]
    )
    assert np.abs(star.astype(int) - expected[0]).max() <= 1  # another size of a call


def test_a_bundled_prior_gets_the_end_token_that_it_was_trained_on(backbone: Path, tmp_path: Path) -> None:
    shutil.copytree(backbone, tmp_path / "tiny")
    (tmp_path / "tiny" / "backbone.json").write_text(json.dumps({"source": "tiny"}))
    all_tokens, end = (TextPainter.load(folder, 64, SETTINGS) for folder in (backbone, tmp_path / "tiny"))
    assert (all_tokens(requests(1), 5.0)[0] != end(requests(1), 5.0)[0]).any()


def test_the_stock_baseline_is_diffusers_own_pipeline(model: Path, tmp_path: Path) -> None:
    """One case through the pipeline as its documentation calls it, against the third of a batch of four."""
    from PIL import Image

    painter = StockPainter.load(model, SETTINGS)
    batch = painter(requests(4), 5.0)
    write_published(Painter.from_pretrained(model), tmp_path)
    case = requests(4)[2].case
    alone = load_pipeline(tmp_path)(
        example_image=Image.fromarray(case.exemplar),
        image=Image.fromarray(case.source),
        mask_image=Image.fromarray(case.mask * np.uint8(255)),
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(2),
    ).images[0]
    assert np.abs(batch[2].astype(int) - np.asarray(alone)).max() <= 1
    assert (batch[2] != case.source)[case.mask == 0].any()  # the pixels outside the mask drift


def test_stock_results_have_their_sources_size(model: Path) -> None:
    request = requests(1)[0]
    wide = replace(request.case, source=np.zeros((50, 90, 3), np.uint8), mask=np.ones((50, 90), np.uint8))
    assert StockPainter.load(model, SETTINGS)([request._replace(case=wide)], 1.0)[0].shape == (50, 90, 3)


def test_the_key_depends_on_the_code_that_computes_pixels_alone() -> None:
    """Neither what finds files, runs processes or scores, nor what trains is among the modules whose code counts."""
    modules = {name: set(code_modules(method.code)) for name, method in PAINTED_METHODS.items()}
    painter = modules["paint_by_example"]
    assert {"pbe.evaluation.painting.windows", "pbe.method.painter", "pbe.method.unet", "pbe.method.seams"} <= painter
    assert {each for each in painter if not each.startswith("pbe.method.")} == {"pbe.evaluation.painting.windows"}
    for each in ("adapters", "initialization", "masks", "training_triplet", "weights"):
        assert f"pbe.method.{each}" not in painter
    assert "pbe.method.initialization" in modules["text_inpainting"]
    assert "pbe.interchange.folder" in modules["stock"]


def test_prompts_are_class_names_and_captions(bench: Bench) -> None:
    assert bench.origins is not None
    first = bench.origins[0]
    assert class_prompts(bench, {})[first.case_id] == f"a {first.exemplar_label.lower()}"
    assert captions(bench, {})[first.case_id] == first.exemplar_caption
    assert first.exemplar_label.lower() in first.exemplar_caption


def test_what_a_baseline_lacks_is_named_before_anything_is_painted(
    bench: Bench, model: Path, backbone: Path, tmp_path: Path
) -> None:
    check_methods(["paint_by_example", "text_inpainting", "text_caption", "stock"], bench, Models(model, backbone), {})
    with pytest.raises(UserError, match="case 0 has no exemplar_label"):
        check_methods(["text_inpainting"], replace(bench, origins=None), Models(model, backbone), {})
    with pytest.raises(UserError, match="needs a text-to-image model, but this backbone is a painter"):
        check_methods(["text_inpainting"], bench, Models(model, model), {})
    shutil.copytree(model, tmp_path / "free")
    config = tmp_path / "free" / "image_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bottleneck": False}))
    with pytest.raises(UserError, match="was trained with method"):
        check_methods(["stock"], bench, Models(tmp_path / "free", backbone), {})
