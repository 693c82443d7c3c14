"""The best weights of a run: kept beside it, whatever is delivered, and found again."""

from pathlib import Path

import pytest
import torch

from pbe.training.best import FOLDER, BestWeights, Delivered, validations
from pbe.training.checkpoints import list_checkpoints
from pbe.training.journal import StepRecord
from pbe.training.storage import RunStorage


def record(step: int, loss: float | None) -> StepRecord:
    return StepRecord(step, 1.0, None, None, None, None, 1e-3, 1.0, loss)


def offered(folder: Path, losses: list[float | None], start: int = 0) -> tuple[BestWeights, list[StepRecord]]:
    """Offer weights that are the step's number after each step with a loss, as a run does from step `start`."""
    best, records = BestWeights(RunStorage(folder)), [record(i, loss) for i, loss in enumerate(losses)]
    for i in range(start, len(records)):
        if (loss := losses[i]) is not None:
            best.offer(i + 1, loss, records[: i + 1], {"w": torch.full((2,), float(i + 1))})
    return best, records


def restored(best: BestWeights, records: list[StepRecord]) -> float:
    weights = {"w": torch.zeros(2)}
    best.copy_to(best.choose("best", records).step, weights)
    return weights["w"][0].item()


def test_the_lowest_validation_loss_is_delivered_and_the_last_weights_otherwise(tmp_path: Path) -> None:
    best, records = offered(tmp_path, [None, 0.5, None, 0.3, 0.4, None, 0.35])
    assert best.choose("best", records) == Delivered(4, 0.3)
    assert best.choose("last", records) == Delivered(7, 0.35)
    assert restored(best, records) == 4


def test_a_loss_that_is_not_lower_keeps_nothing(tmp_path: Path) -> None:
    offered(tmp_path, [0.5, 0.6, float("nan"), 0.5])
    assert [path.name for path in list_checkpoints(tmp_path / FOLDER)] == ["step-00000001"]


def test_a_run_that_resumes_before_its_best_finds_it_again(tmp_path: Path) -> None:
    losses = [0.9, 0.5, 0.4, 0.7]
    offered(tmp_path, losses[:3])
    best, records = offered(tmp_path, losses, start=2)  # from a checkpoint after step 2
    assert restored(best, records) == 3


def test_a_best_that_does_not_come_back_leaves_the_one_before(tmp_path: Path) -> None:
    offered(tmp_path, [0.9, 0.5, 0.4])
    best, records = offered(tmp_path, [0.9, 0.5, 0.6], start=2)  # on a GPU, the bits of the repeated step differ
    assert restored(best, records) == 2


def test_missing_weights_fall_back_to_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = BestWeights(RunStorage(tmp_path))
    assert best.choose("best", [record(0, 0.5), record(1, 0.6)]) == Delivered(2, 0.6)
    assert "the best weights are missing; the last ones are delivered" in caplog.text
    assert validations([record(0, float("inf")), record(1, None)]) == []
