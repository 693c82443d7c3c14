"""Batches in a row are encoded as each alone, and bf16 stays near fp32."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.method.training_triplet import TrainingTriplet


def samples(count: int, seed: int = 0) -> list[TrainingTriplet]:
    """Samples of smooth pictures, as photographs are at the scale of a pixel."""
    rng = np.random.default_rng(seed)

    def picture(side: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        return np.kron(coarse, np.ones((8, 8, 1), np.uint8))

    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 1
    return [TrainingTriplet(picture(64), mask, np.stack([picture(32), picture(32)])) for _ in range(count)]


def test_batches_in_a_row_are_encoded_as_each_alone(backbone: Path) -> None:
    encoders = FrozenEncoders(backbone)
    batches = [samples(3, seed) for seed in range(3)] + [samples(1, 3)]
    together = list(encoders.encode_all(batches))
    assert len(together) == 4
    for got, batch in zip(together, batches, strict=True):
        alone = encoders.encode(batch)
        assert {name: tensor.dtype for name, tensor in got.items()} == dict.fromkeys(alone, torch.float16)
        assert all(torch.equal(got[name], alone[name]) for name in alone)
        assert len(got["mask"]) == len(batch)
    assert list(encoders.encode_all([])) == []


def test_the_source_is_hidden_behind_the_mask(backbone: Path) -> None:
    encoders = FrozenEncoders(backbone)
    (sample,) = samples(1)
    grey = TrainingTriplet(
        np.where(sample.mask[..., None] == 1, np.uint8(7), sample.source), sample.mask, sample.exemplars
    )
    a, b = encoders.encode([sample]), encoders.encode([grey])
    assert torch.equal(a["masked_latents"], b["masked_latents"])
    assert not torch.equal(a["source_latents"], b["source_latents"])


@pytest.mark.parametrize("name", ["source_latents", "masked_latents", "class_tokens"])
def test_bf16_differs_from_fp32_by_less_than_two_hundredths(backbone: Path, name: str) -> None:
    batch = samples(8)
    exact = FrozenEncoders(backbone).encode_unrounded(batch)[name]
    near = FrozenEncoders(backbone, dtype=torch.bfloat16).encode_unrounded(batch)[name].float()
    difference = (near - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < difference < 0.02


def test_fp32_is_stored_within_the_rounding_of_fp16(backbone: Path) -> None:
    batch = samples(4)
    encoders = FrozenEncoders(backbone)
    exact, stored = encoders.encode_unrounded(batch), encoders.encode(batch)
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor.float(), exact[name], rtol=2**-11, atol=2**-24)
