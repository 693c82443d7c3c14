"""Stage curate: rejects images of data/raw, and writes the boxes of the others to data/curated and to FiftyOne."""

import os
from pathlib import Path

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.curation import selection, verdicts
from pbe.method.conditioner import Conditioner
from pbe.runtime import mongod
from pbe.runtime.devices import choose_device, choose_precision
from pbe.runtime.files import write_json
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def curate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Reject images by the rules under `curate`; FIFTYONE_DATABASE_URI names a MongoDB other than the project's."""
    encoder = layout.BACKBONE / "image_encoder"
    require(folder, layout.RAW / "manifest.parquet", layout.BOXES / "boxes.parquet", encoder)
    device = choose_device(settings.curate.device, "curate.device")
    dtype = choose_precision(settings.curate.precision, device, "curate.precision")
    tower = Conditioner.from_tower(folder / encoder, context_dim=1).to(device, dtype)
    home = folder / layout.FIFTYONE_HOME
    with mongod.running_mongod(home, os.environ.get("FIFTYONE_DATABASE_URI")) as uri:
        report = selection.curate(
            folder / layout.RAW,
            folder / layout.BOXES / "boxes.parquet",
            folder / layout.CURATED,
            settings.curate,
            tower.embed,
            database_uri=uri,
            home=home,
            dataset=layout.FIFTYONE_DATASET,
            verdicts=verdicts.read_verdicts(folder / layout.VERDICTS),
            embed_px=tower.exemplar_px,
            num_workers=len(os.sched_getaffinity(0)),
            bars=bars,
        )
    write_json(folder / layout.counts("curate"), report.as_dict())
    return report.as_dict()


curate_flow = stage_flow("curate", curate)

if __name__ == "__main__":
    main(curate_flow)
