"""The inputs of a stage that other stages write: a missing one is an error that names the stage to run."""

from pathlib import Path

from pbe import layout
from pbe.errors import UserError

WRITTEN_BY = {
    layout.RAW / "manifest.parquet": "acquire",
    layout.BOXES / "boxes.parquet": "filter",
    layout.CURATED / "boxes.parquet": "curate",
    layout.BACKBONE / "image_encoder": "backbone",
    layout.LATENTS: "encode",
    layout.MODEL: "train",
    layout.BENCH: "bench",
    layout.METRICS: "evaluate",
}


def require(folder: Path, *paths: Path) -> None:
    """Raise UserError when one of the paths, each a key of WRITTEN_BY, does not exist in the project's folder."""
    for path in paths:
        if not (folder / path).exists():
            raise UserError(f"{path}: no such file or folder; run the {WRITTEN_BY[path]} stage first")
