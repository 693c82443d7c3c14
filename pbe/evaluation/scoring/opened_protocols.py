"""The protocols of an evaluation with the statistics of its real images, as each protocol encodes them."""

from pathlib import Path
from typing import Literal

import torch

from pbe.dataset.images import image_size
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.loading import open_encoder
from pbe.evaluation.reference.opening import open_reference
from pbe.evaluation.scoring.comparison import MeasuredProtocol
from pbe.evaluation.scoring.protocols import open_protocols, shares_whole_images
from pbe.evaluation.scoring.results import measured_protocols
from pbe.types import Progress, no_progress


def open_measured_protocols(
    name: Literal["corrected", "official", "both"],
    encoder: Path,
    real: Path,
    raw: Path,
    bench: Bench,
    *,
    limit: int,
    seed: int,
    cache: Path,
    device: torch.device,
    progress: Progress = no_progress,
) -> list[MeasuredProtocol]:
    """Open the encoder, and encode up to `limit` real images at the bench's size, or read their statistics.

    `real` is a folder of images, what curation wrote of the images in `raw`, or a file of statistics. Statistics of a
    folder are kept below `cache`. Raises what `open_encoder` and `open_reference` raise.
    """
    protocols = open_protocols(name, open_encoder(encoder, device))
    encoded = protocols[:1] if shares_whole_images(protocols) else protocols
    references = [
        open_reference(
            real,
            raw,
            bench_px(bench),
            protocol.features,
            limit=limit,
            seed=seed,
            official=name != "corrected",
            cache=cache / f"reference-{protocol.name}.safetensors",
            progress=progress,
        )
        for protocol in encoded
    ]
    return measured_protocols(protocols, references)


def bench_px(bench: Bench) -> int:
    """Return the side of the squares that real images are resized to: the short side of the bench's first source."""
    return min(image_size(bench.files(bench.ids[0]).source))
