"""Addresses of what a run has made, for the links in Prefect's interface.

A page in the browser cannot open a file, so they are those of the servers of `make up`, where these run.
"""

import os
from pathlib import Path

from pbe import layout

MLFLOW_URL, REPORTS_URL = "PBE_MLFLOW_URL", "PBE_REPORTS_URL"  # set by `make up` for the runs of its worker


def report_address(page: Path) -> str:
    """Return the address of a file in reports/: on the server of `make up`, else as a file."""
    base, path, reports = os.environ.get(REPORTS_URL), page.resolve(), layout.REPORTS.resolve()
    return f"{base}/{path.relative_to(reports)}" if base and path.is_relative_to(reports) else path.as_uri()


def version_address(name: str, version: int) -> str:
    """Return the address of a registered version in MLflow's interface; empty when no server is known."""
    base = os.environ.get(MLFLOW_URL) or os.environ.get("MLFLOW_TRACKING_URI", "")
    return f"{base.rstrip('/')}/#/models/{name}/versions/{version}" if base.startswith("http") else ""
