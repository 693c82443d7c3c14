"""Stage register: the trained model becomes a version in MLflow's registry, and the champion if the gate lets it."""

import dataclasses
import json
from pathlib import Path

from flows.provenance import provenance_tags, tracking_uri
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.serving import registry
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def register(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Register models/pbe with its metrics, ask the gate, and write registered.json."""
    registered = registry.register(
        folder / layout.MODEL,
        json.loads((folder / layout.METRICS).read_text()),
        settings.register_,
        tracking_uri=tracking_uri(folder),
        experiment=layout.EXPERIMENT,
        run_id=last_run(folder / layout.LAST_RUN),
        hashes=provenance_tags(folder),
    )
    registry.write_registered(registered, folder / layout.REGISTERED)
    return dataclasses.asdict(registered)


def last_run(path: Path) -> str | None:
    """The id of the MLflow run that trained the model; None where it was trained elsewhere."""
    return path.read_text().strip() if path.is_file() else None


register_flow = stage_flow("register", register)

if __name__ == "__main__":
    main(register_flow)
