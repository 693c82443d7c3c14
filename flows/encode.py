"""Stage encode: latents, masks and class tokens of every sample, written once, into data/latents."""

import os
from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.latents import latent_cache
from pbe.runtime.files import write_json
from pbe.runtime.ray_cluster import ray_cluster
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def encode(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Encode every variant of every curated train box; whole shards that are there are not made again."""
    with ray_cluster(os.environ.get("RAY_ADDRESS"), settings.encode.num_workers + 1):
        counts: Counts = latent_cache.encode(
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
