"""Order and randomness of training are functions of seed and step, however many workers share them."""

import pytest
import torch

from pbe.training.batches import BatchSource
from tests.support import parameters

NUM_SAMPLES = 23


def fetch(indices, epochs):
    n = len(indices)
    index = torch.tensor(indices).float().view(n, 1, 1, 1)
    return {
        "source_latents": index.expand(n, 4, 2, 2),
        "masked_latents": torch.zeros(n, 4, 2, 2),
        "mask": torch.zeros(n, 1, 2, 2),
        "class_tokens": torch.arange(n * 2 * 3).float().view(n, 2, 1, 3),
    }


def source(num_workers=1, batch_size=8, accumulate=1, seed=0, **kw):
    return BatchSource(
        NUM_SAMPLES,
        fetch,
        parameters.train(num_workers=num_workers, batch_size=batch_size, accumulate=accumulate, **kw),
        seed,
    )


def seen(src, step):
    share = src.train.num_workers
    parts = [b for rank in range(share) for b in src.batches(step, rank)]
    names = ("source_latents", "noise", "timesteps", "dropped")
    return {name: torch.cat([getattr(b, name) for b in parts]) for name in names}


@pytest.mark.parametrize("split", [(2, 4, 1), (4, 2, 1), (1, 2, 4), (2, 2, 2)])
def test_the_same_global_batch_however_it_is_shared(split):
    workers, batch, accumulate = split
    for step in (0, 5):
        one, other = seen(source(), step), seen(source(workers, batch, accumulate), step)
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_every_sample_comes_once_an_epoch():
    src = source()
    order = [i for step in range(NUM_SAMPLES) for i in src.indices(step)[0]]
    for epoch in range(8):
        assert sorted(order[epoch * NUM_SAMPLES : (epoch + 1) * NUM_SAMPLES]) == list(range(NUM_SAMPLES))


def test_steps_and_seeds_differ():
    assert not torch.equal(seen(source(), 0)["noise"], seen(source(), 1)["noise"])
    assert not torch.equal(seen(source(), 0)["noise"], seen(source(seed=1), 0)["noise"])


def test_conditions_are_dropped_for_single_samples_at_the_stated_share():
    src = source(batch_size=100, drop_probability=0.2)
    dropped = torch.cat([seen(src, s)["dropped"] for s in range(100)]).float()
    assert abs(dropped.mean() - 0.2) < 0.02
    assert 0 < seen(src, 0)["dropped"].float().mean() < 1


def test_timesteps_are_uniform():
    steps = torch.cat([seen(source(batch_size=100), s)["timesteps"] for s in range(50)]).float()
    assert abs(steps.mean() - 499.5) < 15
    assert steps.min() >= 0
    assert steps.max() <= 999
