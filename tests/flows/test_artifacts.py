"""What Prefect's interface shows of a run: the stages, the model against the champion, the gallery, and links."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from flows import artifacts, register
from flows.artifacts import GALLERY_PX, StageRow, data_url, model_markdown, publish_model, publish_stages
from flows.links import MLFLOW_URL, REPORTS_URL
from pbe import layout
from tests.support.report_files import write_evaluation

NAMES = ("paint_by_example", "source")
REGISTERED = {
    "name": "paint-by-example",
    "version": 3,
    "alias": "champion",
    "promoted": True,
    "reason": "Promoted: identity +2.1 [+1.0, +3.2].",
    "outcome": "better",
    "table": [
        {"metric": "identity", "against": "champion", "challenger": 74.83, "baseline": 72.73, "difference": 2.1,
         "low": 1.0, "high": 3.2, "num_cases": 256, "verdict": "better"}
    ],
}  # fmt: skip


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the artifacts that are created, by their keys."""
    created: dict[str, Any] = {}
    monkeypatch.setattr(artifacts.FlowRunContext, "get", lambda: object())
    for kind in ("markdown", "table", "image"):
        monkeypatch.setattr(
            artifacts, f"create_{kind}_artifact", lambda content, key, **_: created.update({key: content})
        )
    return created


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with a registered model, and without servers."""
    monkeypatch.chdir(tmp_path)
    for name in (MLFLOW_URL, REPORTS_URL, "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    layout.REPORTS.mkdir()
    layout.REGISTERED.write_text(json.dumps(REGISTERED))
    layout.PAGE.write_text("<html>")
    Image.fromarray(np.full((3000, 2000, 3), 200, np.uint8)).save(layout.GALLERY)
    return tmp_path


def test_an_evaluation_gets_its_summary_with_the_address_of_the_report(tmp_path: Path, created: dict[str, Any]) -> None:
    artifacts.publish_report(write_evaluation(tmp_path, range(20), NAMES), tmp_path, tmp_path / "index.html")
    text = created["evaluation-report"]
    assert "| unchanged source |" in text
    assert f"[The report](file://{tmp_path}/index.html)" in text


def test_without_a_flow_run_there_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "create_markdown_artifact", pytest.fail)
    artifacts.publish_report({}, tmp_path, tmp_path / "index.html")


def test_the_table_of_stages_has_outcomes_seconds_and_the_reason(created: dict[str, Any]) -> None:
    publish_stages([StageRow("acquire", "cached", 0.04), StageRow("train", "UserError", 61.26, "data/latents: empty")])
    assert created["pipeline"] == [
        {"stage": "acquire", "outcome": "cached", "seconds": 0.0, "reason": ""},
        {"stage": "train", "outcome": "UserError", "seconds": 61.3, "reason": "data/latents: empty"},
    ]


def test_a_model_is_shown_against_the_champion_with_links(
    project: Path, created: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MLFLOW_URL, "http://127.0.0.1:5000")
    monkeypatch.setenv(REPORTS_URL, "http://127.0.0.1:8001")
    publish_model(project)
    text = created["model"]
    assert text.startswith("## paint-by-example, version 3: champion\n\nPromoted: identity +2.1")
    assert "| identity | champion | 74.83 | 72.73 | +2.1 [+1, +3.2] | better |" in text
    assert "- [The report](http://127.0.0.1:8001/index.html)" in text
    assert "- [The version in MLflow](http://127.0.0.1:5000/#/models/paint-by-example/versions/3)" in text
    assert created["gallery"].startswith("data:image/jpeg;base64,")


def test_without_servers_the_report_is_a_file_and_mlflow_has_no_link(project: Path) -> None:
    text = model_markdown(REGISTERED, project)
    assert f"[The report](file://{project}/reports/index.html)" in text
    assert "MLflow" not in text


def test_a_report_outside_of_reports_is_a_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REPORTS_URL, "http://127.0.0.1:8001")
    from flows.links import report_address

    assert report_address(project / "elsewhere/index.html") == f"file://{project}/elsewhere/index.html"
    (project / "reports/models/photo").mkdir(parents=True)
    (project / "copy").mkdir()
    (project / "copy/reports").symlink_to(project / "reports/models/photo")
    assert report_address(project / "copy/reports/index.html") == "http://127.0.0.1:8001/models/photo/index.html"


def test_the_gallery_is_reduced_and_part_of_the_artifact(project: Path) -> None:
    head, _, content = data_url(project / layout.GALLERY).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (GALLERY_PX * 2 // 3, GALLERY_PX)


@pytest.mark.usefixtures("created")
def test_a_project_without_a_model_has_no_such_artifacts(tmp_path: Path, created: dict[str, Any]) -> None:
    publish_model(tmp_path)
    assert created == {}


def test_a_lost_server_is_a_warning(
    project: Path, created: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the registry and the files have is done: the stage must not end as failed, and run again."""

    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    for kind in ("markdown", "table", "image"):
        monkeypatch.setattr(artifacts, f"create_{kind}_artifact", refuse)
    monkeypatch.setattr(register, "create_table_artifact", refuse)
    publish_stages([StageRow("train", "ran", 1.0)])
    publish_model(project)
    register.show_comparisons(REGISTERED["table"])
    artifacts.publish_report(write_evaluation(project, range(20), NAMES), project, project / "index.html")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["Prefect's server does not show all of this run: [Errno 111] Connection refused"] * 4
