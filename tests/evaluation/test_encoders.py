from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pbe.evaluation.encoders import ClipEncoder, encode_batch, encode_images, encode_whole, open_encoder
from pbe.method.painter import Painter


def images(count: int, side: int = 16) -> list[np.ndarray]:
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


def test_features_do_not_depend_on_the_batches(encoder: object) -> None:
    whole = encode_images(encoder, iter(images(5)), 5)  # type: ignore[arg-type]
    assert whole.shape == (5, 8)
    np.testing.assert_array_equal(whole, encode_images(encoder, images(5), 2))  # type: ignore[arg-type]


def test_the_tower_sees_a_whole_image_as_the_mean_of_its_tiles(painter: Painter) -> None:
    encoder = open_encoder("tower", painter.conditioner)
    side = encoder.input_px
    image, small = images(1, 2 * side)[0], images(1, side)[0]
    tiles = [image[y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
    whole = encode_whole(encoder, [image, small])
    np.testing.assert_allclose(whole[0], encode_batch(encoder, tiles).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole[1], encode_batch(encoder, [small])[0], rtol=1e-5, atol=1e-6)


def test_no_images_are_refused(encoder: object) -> None:
    with pytest.raises(ValueError, match="no images"):
        encode_images(encoder, [], 2)  # type: ignore[arg-type]


def test_clip_features_are_the_models_own(clip_folder: Path) -> None:
    encoder = ClipEncoder(clip_folder)
    image = images(1)[0]
    pixels = (image / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / [0.26862954, 0.26130258, 0.27577711]
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).image_embeds
    np.testing.assert_allclose(encode_batch(encoder, [image]), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert encoder.name == "CLIP ViT-2x16/8 at 16 px"


def test_the_folders_own_pixel_statistics_count(clip_folder: Path) -> None:
    openai = encode_batch(ClipEncoder(clip_folder), images(1))
    card = clip_folder / "preprocessor_config.json"
    card.write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    assert not np.allclose(openai, encode_batch(ClipEncoder(clip_folder), images(1)))
    card.unlink()


def test_the_painters_tower_is_named_as_what_it_is(painter: Painter) -> None:
    encoder = open_encoder("tower", painter.conditioner)
    assert encoder.name.startswith("the painter's own CLIP tower, ViT-4x16/8 at 16 px (class token")
    np.testing.assert_allclose(np.linalg.norm(encode_batch(encoder, images(3)), axis=1), 1.0, rtol=1e-5)


def test_a_folder_without_a_model_is_refused(painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no CLIP model here .*evaluate\.encoder"):
        open_encoder(str(tmp_path), painter.conditioner)
