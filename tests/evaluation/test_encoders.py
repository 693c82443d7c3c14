"""The encoders of the metrics: the painter's own tower and CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pbe.errors import UserError
from pbe.evaluation.encoders.clip import ClipEncoder
from pbe.evaluation.encoders.encode import encode_batch, encode_images, encode_whole
from pbe.evaluation.encoders.loading import open_encoder
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.encoders.tower import TowerEncoder
from pbe.evaluation.encoders.vision_transformer import PackedLinear
from pbe.method.conditioner import CLIP_MEAN, CLIP_STD
from pbe.method.painter import Painter


def images(count: int, side: int = 16) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side + i % 2, 3), dtype=np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=6,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def test_features_do_not_depend_on_the_batch_size(encoder: FeatureEncoder) -> None:
    whole = encode_images(encoder, iter(images(5)), 5)
    assert whole.shape == (5, 8)
    np.testing.assert_array_equal(whole, encode_images(encoder, images(5), 2))


def test_the_tower_sees_a_whole_image_as_the_mean_of_its_tiles(painter: Painter) -> None:
    encoder = TowerEncoder(painter.conditioner)
    side = encoder.input_px
    image, small = images(1, 2 * side)[0], images(1, side)[0]
    tiles = [image[y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
    whole = encode_whole(encoder, [image, small])
    np.testing.assert_allclose(whole[0], encode_batch(encoder, tiles).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole[1], encode_batch(encoder, [small])[0], rtol=1e-5, atol=1e-6)


def test_no_images_are_refused(encoder: FeatureEncoder) -> None:
    with pytest.raises(ValueError, match="no images"):
        encode_images(encoder, [], 2)


def test_clip_features_are_the_image_embeddings_of_transformers(clip_folder: Path) -> None:
    encoder = ClipEncoder(clip_folder)
    image = images(1)[0]
    pixels = (image / 255 - np.array(CLIP_MEAN)) / CLIP_STD
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).image_embeds
    np.testing.assert_allclose(encode_batch(encoder, [image]), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert encoder.name == "CLIP ViT-2x16/8 at 16 px"


def test_features_do_not_depend_on_the_other_images_of_a_batch_to_the_bit(clip_folder: Path) -> None:
    encoder, pictures = ClipEncoder(clip_folder), images(21)
    whole = encode_images(encoder, pictures, 21)
    for batch_size in (1, 5, 8):
        np.testing.assert_array_equal(encode_images(encoder, pictures, batch_size), whole)
    np.testing.assert_array_equal(encode_images(encoder, pictures[::-1], 21), whole[::-1])


@pytest.mark.parametrize("has_onednn", [True, False])
def test_without_onednn_features_are_the_same_up_to_rounding(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch, has_onednn: bool
) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: has_onednn)
    encoder = ClipEncoder(clip_folder)
    assert any(isinstance(layer, PackedLinear) for layer in encoder._model.modules()) == has_onednn
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    pixels = encoder.to_pixels(np.stack(images(11)[::2]))
    with torch.no_grad():
        expected = model(pixel_values=pixels).image_embeds
    np.testing.assert_allclose(encoder.encode_pixels(pixels), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_the_pixel_statistics_in_the_folder_are_used(clip_folder: Path) -> None:
    openai = encode_batch(ClipEncoder(clip_folder), images(1))
    config = clip_folder / "preprocessor_config.json"
    config.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    assert not np.allclose(openai, encode_batch(ClipEncoder(clip_folder), images(1)))
    config.write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json: not valid JSON"):
        ClipEncoder(clip_folder)
    config.unlink()


def test_the_name_of_the_painters_tower_has_its_architecture_and_input(painter: Painter) -> None:
    encoder = TowerEncoder(painter.conditioner)
    assert encoder.name.startswith("the painter's own CLIP tower, ViT-4x16/8 at 16 px (class token")
    np.testing.assert_allclose(np.linalg.norm(encode_batch(encoder, images(3)), axis=1), 1.0, rtol=1e-5)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no CLIP model .*evaluate\.encoder"):
        open_encoder(tmp_path)


def test_a_folder_with_damaged_or_missing_weights_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be loaded as a CLIP model: "):
        ClipEncoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"^{tmp_path}: cannot be loaded as a CLIP model: "):
        ClipEncoder(tmp_path)


def test_what_lies_in_a_folder_decides_which_encoder_it_is(
    painter: Painter, model_folder: Path, clip_folder: Path
) -> None:
    tower = open_encoder(model_folder / "image_encoder")
    assert isinstance(tower, TowerEncoder)
    assert tower.digest == TowerEncoder(painter.conditioner).digest
    np.testing.assert_array_equal(
        encode_batch(tower, images(2)), encode_batch(TowerEncoder(painter.conditioner), images(2))
    )
    assert isinstance(open_encoder(clip_folder), ClipEncoder)


def test_the_digest_is_that_of_the_weights_whatever_file_holds_them(clip_folder: Path, tmp_path: Path) -> None:
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    digest = ClipEncoder(clip_folder).digest
    assert ClipEncoder(tmp_path).digest == digest
    assert ClipEncoder(clip_folder, dtype=torch.bfloat16).digest != digest
    with torch.no_grad():
        model.visual_projection.weight[0, 0] += 1e-3
    model.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert ClipEncoder(tmp_path).digest != digest


@pytest.mark.parametrize("kind", ["clip", "tower"])
def test_in_bf16_features_are_near_those_of_fp32_and_the_name_says_so(
    clip_folder: Path, model_folder: Path, kind: str
) -> None:
    folder = clip_folder if kind == "clip" else model_folder / "image_encoder"
    exact, half = open_encoder(folder), open_encoder(folder, dtype=torch.bfloat16)
    np.testing.assert_allclose(encode_batch(half, images(3)), encode_batch(exact, images(3)), atol=0.05)
    assert "in bf16" in half.name
    assert "bf16" not in exact.name
