"""The evaluation's artifact in Prefect."""

from pathlib import Path
from typing import Any

import pytest

from flows import artifacts
from tests.support.report_files import write_evaluation

NAMES = ("paint_by_example", "source")


def test_a_flow_run_gets_the_summary_with_the_address_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(artifacts.FlowRunContext, "get", lambda: object())
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, **named: created.append((text, named)))
    artifacts.publish_report(write_evaluation(tmp_path, range(20), NAMES), tmp_path, tmp_path / "index.html")
    ((text, named),) = created
    assert named["key"] == "evaluation-report"
    assert "| unchanged source |" in text
    assert f"[The report](file://{tmp_path}/index.html)" in text


def test_without_a_flow_run_there_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "create_markdown_artifact", pytest.fail)
    artifacts.publish_report({}, tmp_path, tmp_path / "index.html")
