"""What single functions of the recipe compute: phases, the perceptual distance, class names, the contrastive loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pbe.demo.photo_weights.captions import MAX_TOKENS, draw_caption, photo_tokenizer
from pbe.demo.photo_weights.photos import Photo
from pbe.demo.photo_weights.recipe import EXEMPLAR_PX, ColourPhase, PhotoRecipe
from pbe.demo.photo_weights.towers import contrast, draw_exemplar
from pbe.demo.photo_weights.vae import PerceptualDistance, colour_phase, to_images


def test_the_colour_phases_follow_the_first_phase() -> None:
    phases = (ColourPhase(2, 0.6, 20.0, 0.5), ColourPhase(1, 1.0, 60.0, 0.5))
    recipe = replace(PhotoRecipe(), vae_steps=3, vae_colour_phases=phases)
    found = [colour_phase(recipe, step) for step in range(6)]
    assert found == [(None, 0), (None, 1), (None, 2), (phases[0], 0), (phases[0], 1), (phases[1], 0)]
    with pytest.raises(IndexError):
        colour_phase(recipe, 6)


def test_the_perceptual_distance_is_0_of_equal_images_and_grows_with_blur() -> None:
    distance, images = PerceptualDistance(64), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = (2 * images - 1).requires_grad_()
    slightly, strongly = (F.avg_pool2d(images.detach(), k, 1, k // 2) for k in (3, 7))
    assert distance(images, images).item() == pytest.approx(0, abs=1e-6)
    near, far = distance(images, slightly), distance(images, strongly)
    assert 0 < near.item() < far.item()
    far.backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_pixels_become_8_bits_with_values_beyond_the_range_clipped() -> None:
    pixels = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_images(pixels)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_every_caption_of_a_class_has_one_token_for_each_word() -> None:
    labels = ["AdjustableClamp", "BoltNutSet", "Wire"]
    tokenizer, rng = photo_tokenizer(labels), np.random.default_rng(0)
    captions = {draw_caption(label, rng) for label in labels for _ in range(60)}
    assert len(captions) == 15  # 3 templates of words and of the label itself; those of wire are the same
    for caption in captions:
        assert len(tokenizer(caption)["input_ids"]) == len(caption.split()) + 2 <= MAX_TOKENS


def test_an_exemplar_is_an_augmented_crop_of_the_box() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:60, 30:70] = 200
    crops = [
        draw_exemplar(image, Photo("p", "train", "p", "p", (30, 20, 70, 60)), np.random.default_rng(seed))
        for seed in range(10)
    ]
    assert {crop.shape for crop in crops} == {(EXEMPLAR_PX, EXEMPLAR_PX, 3)}
    assert all(crop.mean() > 100 for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 1


def test_the_contrastive_loss_is_the_mean_negative_log_probability_of_positives() -> None:
    queries = F.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0], [-1.0, 0.4]]), dim=1)
    positives = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 0]]).bool()
    none = torch.zeros(3, 3, dtype=torch.bool)
    logits = (queries @ queries.T / 0.1).double().exp().numpy()
    shares = logits / logits.sum(1, keepdims=True)
    expected = -np.mean([np.log(shares[0, 1]), np.log(shares[1, 0]), np.log(shares[2, :2]).mean()])
    assert contrast(queries, queries, positives, none).item() == pytest.approx(expected, rel=1e-5)


def test_other_clips_of_the_same_class_do_not_count_as_others() -> None:
    queries = F.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0], [-1.0, 0.4]]), dim=1)
    positives = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    ignored = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1]]).bool()  # all are of one class
    assert contrast(queries, queries, positives, ignored).item() == pytest.approx(0, abs=1e-6)
