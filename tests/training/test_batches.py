"""Order and randomness of training are functions of seed and step, however many workers share them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pbe.training.batches import BatchSource
from tests.support import parameters

NUM_SAMPLES = 23


def fetch(indices: list[int], epochs: list[int]) -> dict[str, Tensor]:
    n = len(indices)
    index = torch.tensor(indices).float().view(n, 1, 1, 1)
    return {
        "source_latents": index.expand(n, 4, 2, 2),
        "masked_latents": torch.zeros(n, 4, 2, 2),
        "mask": torch.zeros(n, 1, 2, 2),
        "class_tokens": torch.arange(n * 2 * 3).float().view(n, 2, 1, 3),
    }


def make_source(seed: int = 0, **changes: Any) -> BatchSource:
    train = parameters.train(**{"num_workers": 1, "batch_size": 8, "accumulate": 1} | changes)
    return BatchSource(NUM_SAMPLES, fetch, train, seed)


def global_batch(source: BatchSource, step: int) -> dict[str, Tensor]:
    parts = [batch for rank in range(source.train.num_workers) for batch in source.batches(step, rank)]
    names = ("source_latents", "noise", "timesteps", "dropped")
    return {name: torch.cat([getattr(batch, name) for batch in parts]) for name in names}


@pytest.mark.parametrize("split", [(2, 4, 1), (4, 2, 1), (1, 2, 4), (2, 2, 2)])
def test_the_global_batch_does_not_depend_on_how_it_is_shared(split: tuple[int, int, int]) -> None:
    workers, batch, accumulate = split
    other = make_source(num_workers=workers, batch_size=batch, accumulate=accumulate)
    for step in (0, 5):
        a, b = global_batch(make_source(), step), global_batch(other, step)
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_every_sample_is_seen_once_in_an_epoch() -> None:
    source = make_source()
    order = [i for step in range(NUM_SAMPLES) for i in source.indices(step)[0]]
    for epoch in range(8):
        assert sorted(order[epoch * NUM_SAMPLES : (epoch + 1) * NUM_SAMPLES]) == list(range(NUM_SAMPLES))


def test_steps_and_seeds_give_different_noise() -> None:
    noise = global_batch(make_source(), 0)["noise"]
    assert not torch.equal(noise, global_batch(make_source(), 1)["noise"])
    assert not torch.equal(noise, global_batch(make_source(seed=1), 0)["noise"])


def test_single_conditions_are_dropped_at_the_given_rate() -> None:
    source = make_source(batch_size=100, drop_probability=0.2)
    dropped = torch.cat([global_batch(source, s)["dropped"] for s in range(100)]).float()
    assert abs(dropped.mean() - 0.2) < 0.02
    assert 0 < global_batch(source, 0)["dropped"].float().mean() < 1


def test_timesteps_are_uniform() -> None:
    source = make_source(batch_size=100)
    timesteps = torch.cat([global_batch(source, s)["timesteps"] for s in range(50)]).float()
    assert abs(timesteps.mean() - 499.5) < 15
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
