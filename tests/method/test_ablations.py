"""The paper's ablation: without each of its parts the model still trains, paints, and is saved and loaded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler

from pbe.errors import UserError
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.method.conditioner import Conditioner, to_pixels
from pbe.method.exemplars import augment_exemplar
from pbe.method.initialization import build_painter
from pbe.method.masks import draw_mask
from pbe.method.painter import Images, Painter
from pbe.method.pretrained import load_scheduler
from pbe.method.training_triplet import TrainingTriplet
from pbe.training.batches import BatchSource
from pbe.training.loop import Trainer
from tests.support import parameters
from tests.support.tiny_models import tiny_unet

NUM_TOKENS = 1 + 4  # the tiny tower cuts 32 px into patches of 16
BOX = (20, 24, 44, 40)


def samples(n: int = 4) -> list[TrainingTriplet]:
    rng = np.random.default_rng(0)
    masks = np.zeros((n, 64, 64), np.uint8)
    masks[:, 20:40, 20:44] = 1
    sources = rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    return [
        TrainingTriplet(*parts)
        for parts in zip(sources, masks, rng.integers(0, 256, (n, 2, 32, 32, 3), np.uint8), strict=True)
    ]


def trained(backbone: Path, steps: int = 3, drop: float = 0.2, **switches: bool) -> tuple[Painter, set[str]]:
    """Return a painter after a few steps on encoded samples, and the names of the tensors that changed."""
    encoded = FrozenEncoders(backbone, bottleneck=switches.get("bottleneck", True)).encode(samples())
    train = parameters.train(num_workers=1, batch_size=4, steps=steps, warmup_steps=0, drop_probability=drop)
    source = BatchSource(4, lambda i, e: {k: v[i].float() for k, v in encoded.items()}, train, 0)
    painter = build_painter(backbone, 64, 0, guidance=drop > 0, **switches)
    before = {k: v.clone() for k, v in painter.state_dict().items()}
    trainer = Trainer(painter, source, train, 0, "cpu")
    for _ in range(steps):
        trainer.run_step()
    changed = {k for k, v in painter.state_dict().items() if not torch.equal(v, before[k])}
    return painter.eval(), changed


def paint(painter: Painter, scale: float = 5.0) -> Images:
    s = samples()
    arguments = (np.stack([x.source for x in s]), np.stack([x.mask for x in s]), np.stack([x.exemplars[0] for x in s]))
    return painter.paint(*arguments, guidance_scale=scale, num_steps=2, seeds=range(4))


def test_without_the_bottleneck_all_tokens_are_cached_and_attended_to(backbone: Path, tmp_path: Path) -> None:
    tokens = FrozenEncoders(backbone, bottleneck=False).encode(samples())["class_tokens"]
    behind = FrozenEncoders(backbone).encode(samples())["class_tokens"]
    assert tokens.shape == (4, 2, NUM_TOKENS, 16)
    assert behind.shape == (4, 2, 1, 16)
    assert torch.equal(tokens[:, :, :1], behind)
    painter, changed = trained(backbone, bottleneck=False)
    assert {"to_q", "to_k", "norm2"} <= {
        part for name in changed if "attn2" in name or "norm2" in name for part in name.split(".")
    }
    painter.save_pretrained(tmp_path)
    again = Painter.from_pretrained(tmp_path)
    assert not again.conditioner.bottleneck
    assert (paint(again) == paint(painter)).all()


def test_without_the_bottleneck_every_token_has_its_own_context(backbone: Path) -> None:
    conditioner = Conditioner.from_tower(backbone / "image_encoder", 16, bottleneck=False)
    pixels = to_pixels(samples()[0].exemplars)
    context = conditioner(conditioner.tokens(pixels))
    assert context.shape == (2, NUM_TOKENS, 16)
    assert len({tuple(t.tolist()) for t in context[0]}) == NUM_TOKENS


def test_without_the_prior_the_unet_starts_from_random_weights(backbone: Path) -> None:
    usual, random = build_painter(backbone, 64, 0), build_painter(backbone, 64, 0, prior=False)
    same = [
        torch.equal(a, b) for a, b in zip(usual.unet.parameters(), random.unet.parameters(), strict=True) if a.ndim > 1
    ]
    assert not any(same)
    assert random.unet.conv_in.weight[:, 4:].abs().min() > 0
    assert trained(backbone, prior=False)[1]


def test_without_dropping_v_stays_unchanged_and_guidance_is_refused(backbone: Path, tmp_path: Path) -> None:
    painter, changed = trained(backbone, drop=0.0)
    assert "conditioner.uncond_vector" not in changed
    painter.save_pretrained(tmp_path)
    again = Painter.from_pretrained(tmp_path)
    assert (paint(again, 1.0) == paint(painter, 1.0)).all()
    with pytest.raises(UserError, match=r"guidance scale 5\.0: this model was trained with train\.drop_probability 0"):
        paint(again)


def test_box_masks_and_plain_crops() -> None:
    rng = np.random.default_rng(0)
    mask = draw_mask(BOX, 64, parameters.mask(shape="box"), rng)
    assert mask.sum() == 24 * 16
    assert mask[24:40, 20:44].all()
    crop = samples()[0].exemplars[0]
    assert (augment_exemplar(crop, parameters.augmentation(augment=False), rng) == crop).all()


def test_an_inpainting_backbone_is_reordered_to_the_papers_channels(backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(backbone, folder)
    inpainting = tiny_unet(9)
    inpainting.save_pretrained(folder / "unet")
    unet = build_painter(folder, 64, 0).unet
    assert torch.equal(unet.conv_in.weight[:, 8], inpainting.conv_in.weight[:, 4])
    assert torch.equal(unet.conv_in.weight[:, 4:8], inpainting.conv_in.weight[:, 5:])
    tiny_unet(5).save_pretrained(folder / "unet")
    with pytest.raises(UserError, match="a UNet with 5 input channels; text-to-image has 4, inpainting 9"):
        build_painter(folder, 64, 0)


def test_a_prior_that_predicts_anything_but_noise_is_refused(tmp_path: Path) -> None:
    PNDMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="prediction_type is v_prediction; only epsilon is supported"):
        load_scheduler(tmp_path)


def test_a_folder_of_another_project_takes_the_inverted_mask(backbone: Path, tmp_path: Path) -> None:
    painter = build_painter(backbone, 64, 0)
    painter.save_pretrained(tmp_path)
    assert Painter.from_pretrained(tmp_path).mask_channel == "repaint"
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["image_px"], index["mask_channel"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    again = Painter.from_pretrained(tmp_path)
    assert (again.mask_channel, again.image_px) == ("keep", 64)
