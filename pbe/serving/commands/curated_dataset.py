"""The FiftyOne dataset of a clone that has pulled data/curated: `pbe browse` writes it, as `curate` did elsewhere."""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from pbe import layout
from pbe.curation.examination import in_threads
from pbe.curation.selection import curate, decisions_digest
from pbe.curation.verdicts import read_verdicts
from pbe.dataset.table_files import read_parquet
from pbe.method.conditioner import Conditioner
from pbe.runtime.devices import choose_device, choose_precision
from pbe.serving.commands.progress import progress_bar
from pbe.settings import load_settings

IMAGES = layout.CURATED / "images.parquet"


def curated_decisions() -> tuple[str, Callable[[str], None]] | None:
    """Return the digest of the decisions in data/curated, and a function that writes their dataset to a MongoDB.

    None when data/curated is not there: `dvc pull` fetches it, and `dvc repro curate` makes it.
    """
    if not IMAGES.is_file():
        return None
    decided = read_parquet(IMAGES, ["split", "image_id", "reason", "duplicate_of"], "curate")
    return decisions_digest(decided), lambda uri: write_dataset(uri, decided)


def write_dataset(uri: str, decided: pl.DataFrame) -> None:
    """Examine the images of data/raw again and write the dataset with these decisions to the MongoDB at `uri`."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading weights
    print(f"writing the dataset of {layout.CURATED} to FiftyOne, which examines every image again", flush=True)
    settings = load_settings(layout.PARAMS).curate
    device = choose_device(settings.device, "curate.device")
    dtype = choose_precision(settings.precision, device, "curate.precision")
    tower = Conditioner.from_tower(layout.BACKBONE / "image_encoder", context_dim=1).to(device, dtype)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())  # for the files, which data/curated has
        curate(
            layout.RAW,
            layout.BOXES / "boxes.parquet",
            Path(scratch),
            settings,
            in_threads(tower.embed, len(os.sched_getaffinity(0))),
            database_uri=uri,
            home=layout.FIFTYONE_HOME,
            dataset=layout.FIFTYONE_DATASET,
            verdicts=read_verdicts(layout.VERDICTS),
            decided=decided,
            embed_px=tower.exemplar_px,
            bars=lambda name: stack.enter_context(progress_bar(name)),
        )
