"""Stage register: the trained model becomes a version in MLflow's registry, and the champion if the gate accepts it."""

import dataclasses
import json
from pathlib import Path

from flows.provenance import provenance_tags, tracking_uri
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.errors import UserError, one_line
from pbe.serving import registry
from pbe.serving.gate import Metrics
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def register(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Register models/pbe with its metrics, ask the gate, and write reports/registered.json."""
    registered = registry.register(
        folder / layout.MODEL,
        read_metrics(folder / layout.METRICS),
        settings.register_,
        tracking_uri=tracking_uri(folder),
        experiment=layout.EXPERIMENT,
        run_id=read_last_run(folder / layout.LAST_RUN),
        tags=provenance_tags(folder),
    )
    registry.write_registered(registered, folder / layout.REGISTERED)
    return dataclasses.asdict(registered)


def read_metrics(path: Path) -> Metrics:
    """Return the content of reports/metrics.json; raises UserError when evaluate has not written it."""
    try:
        content: Metrics = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run: dvc repro evaluate") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({one_line(error)}); run: dvc repro --force evaluate") from None
    return content


def read_last_run(path: Path) -> str | None:
    """Return the id of the MLflow run that trained the model, or None when it was trained elsewhere."""
    return path.read_text().strip() if path.is_file() else None


register_flow = stage_flow("register", register)

if __name__ == "__main__":
    main(register_flow)
