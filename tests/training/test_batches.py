"""Order and randomness of training are functions of seed and step, however many workers share them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pbe.dataset.curated_boxes import read_curated_boxes
from pbe.latents.frozen_encoders import FrozenEncoders
from pbe.latents.samples import SampleDrawer
from pbe.training.batches import BatchSource, FreshSource, PrefetchedBatches, fresh_source
from pbe.training.painting_loss import Batch
from tests.support import parameters
from tests.support.tiny_data import write_scenes

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


def test_offset_noise_is_the_same_on_any_number_of_workers() -> None:
    offset = make_source(offset_noise=0.5)
    plain, noise = (global_batch(source, 3)["noise"] for source in (make_source(), offset))
    constants = noise - plain
    assert constants.abs().min() > 0
    torch.testing.assert_close(constants, constants[..., :1, :1].expand_as(constants), rtol=0, atol=1e-5)
    shared = make_source(num_workers=4, batch_size=2, offset_noise=0.5)
    assert torch.equal(noise, global_batch(shared, 3)["noise"])


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


METHOD = parameters.method()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def make_fresh(scenes: Path, backbone: Path, **changes: Any) -> FreshSource:
    train = parameters.train(**{"num_workers": 2, "batch_size": 2, "accumulate": 2, "steps": 6} | changes)
    return fresh_source(scenes / "images", scenes, backbone, METHOD, train, 0, "cpu")


def are_equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.__dict__.values(), b.__dict__.values(), strict=True))


def test_batches_from_images_are_the_encodings_of_each_sample_in_its_epoch(scenes: Path, backbone: Path) -> None:
    source = make_fresh(scenes, backbone)
    boxes = read_curated_boxes(scenes, "train")
    drawer, encoders = SampleDrawer(scenes / "images", METHOD, 32, 1, 0), FrozenEncoders(backbone)
    for step, rank in ((0, 0), (4, 1)):  # 12 boxes and 8 samples a step: step 4 is in the third epoch
        batches = source.batches(step, rank)
        indices, epochs = (part[4 * rank :][:4] for part in source.indices(step))
        assert [len(batch.mask) for batch in batches] == [2, 2]
        for i, batch in enumerate(batches):
            drawn = [drawer.draw(boxes[indices[k]], epochs[k]) for k in (2 * i, 2 * i + 1)]
            expected = encoders.encode(drawn)
            assert torch.equal(batch.source_latents, expected["source_latents"].float())
            assert torch.equal(batch.masked_latents, expected["masked_latents"].float())
            assert torch.equal(batch.class_tokens, expected["class_tokens"][:, 0].float())


def test_batches_from_images_do_not_depend_on_the_steps_before(scenes: Path, backbone: Path) -> None:
    in_order, resumed = make_fresh(scenes, backbone), make_fresh(scenes, backbone)
    steps = [in_order.batches(step, 1) for step in range(6)]
    for step in (3, 4, 1):
        assert all(map(are_equal, resumed.batches(step, 1), steps[step]))


def test_the_samples_of_the_next_steps_are_drawn_while_a_step_runs(scenes: Path, backbone: Path) -> None:
    source = make_fresh(scenes, backbone)
    source.batches(0, 0)
    ahead = [key for step in range(4) for key in zip(*(part[:4] for part in source.indices(step)), strict=True)]
    assert list(source._drawn) == ahead
    source.batches(5, 0)
    assert len(source._drawn) == 4  # there is no step after the last one


def test_batches_from_images_prepared_in_a_thread_are_the_same(scenes: Path, backbone: Path) -> None:
    source, ahead = make_fresh(scenes, backbone), PrefetchedBatches(make_fresh(scenes, backbone), "cpu")
    for step in (0, 1, 2, 5):
        assert all(map(are_equal, ahead.batches(step, 0), source.batches(step, 0)))


def test_batches_from_images_are_encoded_in_the_precision_of_training(scenes: Path, backbone: Path) -> None:
    one, other = (make_fresh(scenes, backbone, precision=p).batches(0, 0)[0] for p in ("fp32", "bf16"))
    assert other.source_latents.dtype == torch.float32
    assert not torch.equal(one.source_latents, other.source_latents)
    torch.testing.assert_close(one.source_latents, other.source_latents, atol=0.05, rtol=0.05)
