"""Stage curate: rejects images of data/raw, and writes the boxes of the others to data/curated and to FiftyOne."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.curation import neighbours, selection, verdicts
from pbe.curation.examination import ExamineBlocks, in_threads
from pbe.curation.neighbours import Search
from pbe.method.conditioner import Conditioner
from pbe.runtime import mongod
from pbe.runtime.devices import choose_device, choose_precision
from pbe.runtime.files import write_json
from pbe.settings import Curate, Settings
from pbe.types import ProgressBars, no_progress_bars


class Work(NamedTuple):
    """How images are examined and embeddings compared, and the side of the squares that the image tower takes."""

    examine_blocks: ExamineBlocks
    search: Search
    embed_px: int


def curate(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Reject images by the rules under `curate`; FIFTYONE_DATABASE_URI names a MongoDB other than the project's."""
    encoder = layout.BACKBONE / "image_encoder"
    require(folder, layout.RAW / "manifest.parquet", layout.BOXES / "boxes.parquet", encoder)
    home = folder / layout.FIFTYONE_HOME
    address = os.environ.get("RAY_ADDRESS")
    with (
        placed(settings.curate, folder / encoder, home, address) as work,
        mongod.running_mongod(home, os.environ.get("FIFTYONE_DATABASE_URI")) as uri,
    ):
        report = selection.curate(
            folder / layout.RAW,
            folder / layout.BOXES / "boxes.parquet",
            folder / layout.CURATED,
            settings.curate,
            work.examine_blocks,
            database_uri=uri,
            home=home,
            dataset=layout.FIFTYONE_DATASET,
            verdicts=verdicts.read_verdicts(folder / layout.VERDICTS),
            embed_px=work.embed_px,
            search=work.search,
            bars=bars,
        )
    write_json(folder / layout.counts("curate"), report.as_dict())
    return report.as_dict()


@contextmanager
def placed(settings: Curate, encoder: Path, home: Path, address: str | None) -> Iterator[Work]:
    """Yield the work as it is done on this machine, or on the Ray cluster at `address`."""
    if not address:
        device = choose_device(settings.device, "curate.device")
        dtype = choose_precision(settings.precision, device, "curate.precision")
        tower = Conditioner.from_tower(encoder, context_dim=1).to(device, dtype)
        yield Work(in_threads(tower.embed, len(os.sched_getaffinity(0))), neighbours.search, tower.exemplar_px)
        return
    from pbe.curation import ray_examination  # takes seconds, which a run without a cluster need not spend
    from pbe.runtime.ray_cluster import check_resources, ray_cluster, waiting_reported

    with ray_cluster(address, num_cpus=0), waiting_reported("curate"):
        use_gpu = ray_examination.uses_gpu(settings.device)
        check_resources("curate", 1, int(use_gpu), can_grow=True)
        tower_there = ray_examination.Tower(encoder.resolve(), settings.precision, use_gpu)
        exemplar_px = Conditioner.from_tower(encoder, context_dim=1).exemplar_px
        examine_blocks = ray_examination.on_cluster(tower_there, home)
        yield Work(examine_blocks, ray_examination.search_on_cluster, exemplar_px)


curate_flow = stage_flow("curate", curate)

if __name__ == "__main__":
    main(curate_flow)
