"""Stage encode: the latents, masks and class tokens of every training sample, written once, into data/latents."""

import os
from pathlib import Path

from flows.inputs import require
from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.latents import encoding
from pbe.runtime.files import write_json
from pbe.runtime.ray_cluster import check_resources, ray_cluster, waiting_reported
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def encode(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Encode every variant of every curated training box; complete shards of the same inputs are kept."""
    require(folder, layout.CURATED / "boxes.parquet", layout.BACKBONE / "image_encoder")
    address = os.environ.get("RAY_ADDRESS")
    num_workers = settings.encode.num_workers
    num_cpus = num_workers * encoding.cpus_per_worker(settings.encode)
    with ray_cluster(address, num_cpus + 1), waiting_reported("encode"):
        check_resources("encode", num_cpus, num_workers if settings.encode.use_gpu else 0, bool(address))
        counts: Counts = encoding.encode(
            folder / layout.RAW / "images",
            folder / layout.CURATED,
            folder / layout.BACKBONE,
            folder / layout.LATENTS,
            settings.method,
            settings.encode,
            settings.seed,
            progress=bars("shards"),
        )
    write_json(folder / layout.counts("encode"), counts)
    return counts


encode_flow = stage_flow("encode", encode)

if __name__ == "__main__":
    main(encode_flow)
