"""The deployments that move the alias `champion`: their runs, and when they try again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import promote as promotion
from flows.promote import promote, rollback
from flows.register import register
from pbe.errors import UnavailableError
from pbe.serving.registry.versions import champion_version
from tests.support.parameters import PARAMETERS, ROOT
from tests.support.planted_evaluations import planted, write_evaluation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, api_url: str) -> Iterator[Path]:
    """Return a project with two versions, of which the second is champion, and a Prefect server."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: api_url}):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
        Path("models/pbe").mkdir(parents=True)
        for number in (1, 2):
            Path("models/pbe/weights").write_text(str(number))
            write_evaluation(planted(number, identity=60.0 + 2 * number), folder)
            assert register(PARAMETERS, Path())["alias"] == "champion"
        yield folder
    mlflow.set_tracking_uri("")


def champion(folder: Path) -> int | None:
    return champion_version("paint-by-example", tracking_uri=f"sqlite:///{folder}/mlflow.db")


def test_promotion_and_rollback_move_the_alias(project: Path) -> None:
    state: State[Any] = promote(version=" 1 ", reason="fewer seams", return_state=True)
    assert (state.is_completed(), champion(project)) == (True, 1)
    state = rollback(return_state=True)
    assert (state.is_completed(), champion(project)) == (True, 2)


@pytest.mark.usefixtures("project")
def test_an_error_of_the_user_is_the_runs_message_and_is_not_tried_again() -> None:
    state: State[Any] = promote(version="7", reason="better", return_state=True)
    assert (state.name, state.message) == (
        "UserError",
        "paint-by-example has no version 7; its versions are 1, 2, its aliases challenger, champion",
    )


@pytest.mark.usefixtures("project")
def test_a_registry_that_does_not_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def unreachable(*_: Any, **__: Any) -> None:
        attempts.append("")
        raise UnavailableError("http://mlflow:5000: does not answer")

    monkeypatch.setattr("pbe.serving.registry.management.promote", unreachable)
    monkeypatch.setattr(promotion, "move_champion", promotion.move_champion.with_options(retry_delay_seconds=0))
    state: State[Any] = promote(version="1", reason="better", return_state=True)
    assert (state.name, len(attempts)) == ("Unavailable", 3)


def test_the_artifact_names_the_champion_and_why() -> None:
    from pbe.serving.registry.management import Moved

    text = promotion.markdown(Moved("paint-by-example", 3, 2, "fewer seams"))
    assert text.startswith(
        "## Version 3 of paint-by-example is the champion\n\nBefore it, version 2 was. Reason: fewer"
    )
