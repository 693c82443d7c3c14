"""What Prefect's interface shows of a run: its stages, the model against the champion, the gallery, and links."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image as PillowImage
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.context import FlowRunContext

from flows.links import report_address, version_address
from flows.server import loss_reported
from pbe import layout
from pbe.evaluation.report.markdown import report_markdown
from pbe.runtime.files import read_json

REPORT_KEY, STAGES_KEY, MODEL_KEY, GALLERY_KEY = "evaluation-report", "pipeline", "model", "gallery"
GALLERY_PX = 1200  # the longer side of the picture, which is part of the artifact


@dataclass(frozen=True)
class StageRow:
    """A row of the table of stages."""

    stage: str
    outcome: str  # ran, cached, or the name of the state in which the stage ended
    seconds: float
    reason: str = ""  # why it failed


@loss_reported()
def publish_report(metrics: Mapping[str, Any], out: Path, page: Path) -> None:
    """Create the artifact of an evaluation, inside a flow run; outside of one, do nothing.

    `metrics` is the content of metrics.json, `out` the folder with the files that scoring writes, `page` the report.
    """
    if FlowRunContext.get() is None:
        return
    markdown = report_markdown(metrics, out, report_address(page))
    create_markdown_artifact(markdown, key=REPORT_KEY, description="Evaluation: summary and main metrics")


@loss_reported()
def publish_stages(rows: Sequence[StageRow]) -> None:
    """Create the table of a pipeline's stages."""
    table = [
        {"stage": row.stage, "outcome": row.outcome, "seconds": round(row.seconds, 1), "reason": row.reason}
        for row in rows
    ]
    create_table_artifact(table, key=STAGES_KEY, description="What each stage did")


@loss_reported()
def publish_model(folder: Path) -> None:
    """Create the artifacts of a project's registered model, where it has one: metrics, links and gallery."""
    if (folder / layout.REGISTERED).is_file():
        markdown = model_markdown(read_json(folder / layout.REGISTERED), folder)
        create_markdown_artifact(markdown, key=MODEL_KEY, description="The model against the champion")
    publish_gallery(folder / layout.GALLERY)


@loss_reported()
def publish_gallery(path: Path) -> None:
    """Create the picture of the gallery at `path`, if it exists."""
    if path.is_file():
        create_image_artifact(data_url(path), key=GALLERY_KEY, description="Painted cases of the bench")


def model_markdown(registered: Mapping[str, Any], folder: Path) -> str:
    """Return the gate's decision on a version, its comparisons as a table, and links.

    `registered` is the content of registered.json.
    """
    name, version = registered["name"], registered["version"]
    title = f"## {name}, version {version}: {registered['alias'] or 'no alias'}"
    links = [
        ("The report", report_address(folder / layout.PAGE)),
        ("The version in MLflow", version_address(name, version)),
    ]
    linked = [f"- [{text}]({address})" for text, address in links if address]
    return "\n\n".join([title, registered["reason"], _comparisons(registered["table"]), "\n".join(linked)])


def _comparisons(table: Sequence[Mapping[str, Any]]) -> str:
    head = "| metric | against | this model | the other | difference, 95 % interval | verdict |"
    line = "| --- | --- | ---: | ---: | ---: | --- |"
    rows = [
        f"| {row['metric']} | {row['against']} | {row['challenger']:.4g} | {row['baseline']:.4g} "
        f"| {row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}] | {row['verdict']} |"
        for row in table
    ]
    return "\n".join([head, line, *rows])


def data_url(path: Path) -> str:
    """Return a picture as an address that contains it, as JPEG with at most GALLERY_PX on a side."""
    with PillowImage.open(path) as picture:
        reduced = picture.convert("RGB")
        reduced.thumbnail((GALLERY_PX, GALLERY_PX))
    content = BytesIO()
    reduced.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
