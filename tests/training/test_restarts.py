"""A training that fails starts again, says why, and gives up after four failures without a new checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from pbe.errors import UserError
from pbe.training import run

DISK = WorkerGroupError("...", {0: OSError(28, "No space left on device", "step-00200/unet")})
KILLED = WorkerGroupError("Traceback ...\nray.exceptions.ActorDiedError: the worker died", {})


@dataclass(frozen=True)
class Job:
    folder: Path


def fit(monkeypatch: pytest.MonkeyPatch, folder: Path, outcomes: list[Any]) -> Any:
    """Run with the given outcome of each attempt: an error, the name of a checkpoint and an error, or a result."""
    left = iter(outcomes)

    def attempt(job: Job, out: Path) -> Any:
        match next(left):
            case (str(checkpoint), error):
                (job.folder / checkpoint).mkdir()
                raise error
            case Exception() as error:
                raise error
            case result:
                return result

    monkeypatch.setattr(run, "_fit", attempt)
    return run._fit_with_restarts(Job(folder), folder / "out", None)  # type: ignore[arg-type]


def test_each_restart_says_its_cause_and_where_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(monkeypatch, tmp_path, [KILLED, ("step-00000100", DISK), "stopped"]) == "stopped"
    died, full = capsys.readouterr().err.splitlines()
    assert died == "train: ray.exceptions.ActorDiedError: the worker died; training continues from the first step"
    assert full.startswith("train: step-00200/unet: the disk is full")
    assert full.endswith("; training continues from step-00000100")


def test_a_new_checkpoint_allows_more_failures_and_the_last_one_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"step-00200/unet: the disk is full"):
        fit(monkeypatch, tmp_path, [KILLED, KILLED, ("step-1", KILLED), KILLED, KILLED, DISK])
    assert capsys.readouterr().err.count("training continues") == 5
