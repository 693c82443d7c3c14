"""Stage encode: latents, masks and class tokens of every sample, written once, into data/latents."""

import os
from pathlib import Path

from flows import layout
from flows.progress import Bars, silent
from flows.stage import Counts, main, stage_flow, write_json
from pbe.data import shards
from pbe.data.cluster import ray_cluster
from pbe.settings import Settings


def encode(settings: Settings, folder: Path, bars: Bars = silent) -> Counts:
    """Encode every variant of every curated train box; whole shards that are there are not made again."""
    with ray_cluster(os.environ.get("RAY_ADDRESS"), settings.encode.num_workers + 1):
        counts: Counts = shards.encode(
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
