"""Trainings that resume: stopped after any step and started again, they end with the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from pbe.demo.weights.resumable import Progress, optimize

STEPS = 6


class StoppedError(Exception):
    """Ends a training in the middle of a step, as a kill does."""


def train(
    state: Path, key: str = "recipe", stop_at: int | None = None, save_every_s: float = -1.0, **options: Any
) -> tuple[list[float], dict[str, Tensor], int]:
    """Return the losses, the weights with their average, and the number of steps of this call."""
    torch.manual_seed(5)
    model, rng, calls = nn.Linear(3, 2), np.random.default_rng(6), 0
    ema = EMAModel(model.parameters(), decay=0.9)

    def loss_of(step: int) -> Tensor:
        nonlocal calls
        calls += 1
        x = torch.from_numpy(rng.standard_normal((4, 3)).astype(np.float32))
        if step == stop_at:
            raise StoppedError
        return (model(x) - torch.randn(4, 2)).square().mean()

    progress = Progress(state, key, {"model": model, "ema": ema}, rng, save_every_s)
    average: Callable[[int], None] = lambda step: ema.step(model.parameters())  # noqa: E731
    losses = optimize(list(model.parameters()), loss_of, STEPS, 0.1, "test", progress, after_step=average, **options)
    averages = {f"average {i}": p for i, p in enumerate(ema.shadow_params)}
    return losses, model.state_dict() | averages, calls


def assert_same(first: tuple[list[float], dict[str, Tensor], int], second: tuple[Any, ...]) -> None:
    assert first[0] == second[0]
    assert all(torch.equal(tensor, second[1][name]) for name, tensor in first[1].items())


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_training_stopped_in_a_step_ends_with_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    straight = train(tmp_path / "straight.pt")
    with pytest.raises(StoppedError):
        train(tmp_path / "stopped.pt", stop_at=stop_at)
    resumed = train(tmp_path / "stopped.pt")
    assert_same(straight, resumed)
    assert straight[2] == STEPS
    assert resumed[2] == STEPS - stop_at


def test_a_finished_training_takes_no_step(tmp_path: Path) -> None:
    first = train(tmp_path / "state.pt")
    again = train(tmp_path / "state.pt")
    assert_same(first, again)
    assert again[2] == 0


def test_the_state_of_another_key_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = train(tmp_path / "fresh.pt")
    with pytest.raises(StoppedError):
        train(tmp_path / "state.pt", key="another recipe", stop_at=4)
    restarted = train(tmp_path / "state.pt")
    assert_same(fresh, restarted)
    assert restarted[2] == STEPS
    assert "the state of another recipe or of other data; the training starts anew" in capsys.readouterr().out


def test_the_state_is_written_at_most_every_so_many_seconds(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path / "state.pt", stop_at=STEPS - 1, save_every_s=3600.0)
    assert not (tmp_path / "state.pt").exists()
    train(tmp_path / "state.pt", save_every_s=3600.0)
    assert (tmp_path / "state.pt").exists()


def test_the_rate_is_a_factor_of_the_learning_rate_and_by_default_a_cosine(tmp_path: Path) -> None:
    start = train(tmp_path / "none.pt", rate=lambda step: 0.0)[1]
    torch.manual_seed(5)
    assert torch.equal(start["weight"], nn.Linear(3, 2).weight)
    ones = train(tmp_path / "one.pt", rate=lambda step: 1.0)[1]
    default = train(tmp_path / "cosine.pt")[1]
    assert not torch.equal(default["weight"], start["weight"])
    assert not torch.equal(default["weight"], ones["weight"])
