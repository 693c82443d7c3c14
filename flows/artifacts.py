"""What the evaluation shows in Prefect's interface: its summary and table, with the address of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from pbe.evaluation.report.markdown import report_markdown

REPORT_KEY = "evaluation-report"


def publish_report(metrics: Mapping[str, Any], out: Path, page: Path) -> None:
    """Create the artifact of an evaluation, inside a flow run; outside of one, do nothing.

    `metrics` is the content of metrics.json, `out` the folder with the files that scoring writes, `page` the report.
    """
    if FlowRunContext.get() is None:
        return
    markdown = report_markdown(metrics, out, page.resolve().as_uri())
    create_markdown_artifact(markdown, key=REPORT_KEY, description="Evaluation: summary and main metrics")
