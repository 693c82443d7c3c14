"""The report's summary and table as Markdown, for Prefect's artifacts and for MLflow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbe.evaluation.report.cautions import cautions
from pbe.evaluation.report.results import Results, method_title, read_results
from pbe.evaluation.report.summary import estimate_text, headline_metrics, summarise
from pbe.evaluation.scoring.metric_table import metric_spec

_FURTHER = ("copy_paste_score", "seam_visibility", "class_agreement")
_MARKS = {"better": "▼", "worse": "▲", "tie": "="}  # how the other method stands to the subject


def report_markdown(metrics: Mapping[str, Any], out: Path, page: str = "") -> str:
    """Return the summary of an evaluation: its headline, a table of the main metrics, and what is not shown.

    `metrics` is the content of metrics.json, `out` the folder with the files that scoring writes, and `page` the
    address of the report, which is left out when it is empty.
    """
    results = read_results(metrics, out)
    summary = summarise(results)
    parts = [summary.headline, _table(results), _legend(results)]
    parts += ["**Not shown**\n\n" + _bullets(summary.not_shown)]
    parts += ["**Before you cite a number**\n\n" + _bullets(tuple(cautions(results)))] if cautions(results) else []
    parts += [f"[The report]({page})"] if page else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: Results) -> str:
    shown = [m for m in (*headline_metrics(results), *_FURTHER) if m in results.metrics]
    arrows = ["↑" if metric_spec(m).higher_is_better else "↓" for m in shown]
    head = ["method", *(f"{metric_spec(m).title} {arrow}" for m, arrow in zip(shown, arrows, strict=True))]
    lines = [head, ["---", *("---:" for _ in shown)]]
    lines += [[_cell(method_title(name)), *(_value(results, name, m) for m in shown)] for name in results.methods]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(results: Results, name: str, metric: str) -> str:
    estimate, difference = results.estimate(name, metric), results.difference(name, metric)
    if estimate is None:
        return ""
    mark = f" {_MARKS[difference.verdict]}" if difference else ""
    return estimate_text(estimate, metric_spec(metric)) + mark


def _legend(results: Results) -> str:
    subject = method_title(results.subject)
    percent = f"{100 * results.confidence:g} %"
    return f"▲ better and ▼ worse than {subject} with {percent} confidence, = no significant difference." * bool(
        results.others
    )


def _bullets(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
