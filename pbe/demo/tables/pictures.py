"""The pictures that the tables compare: which painter, at which guidance scales, on which bench."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pbe.demo.tables.directions import UNGUIDED
from pbe.demo.tables.scores import BOX_BENCH, IRREGULAR_BENCH, Source
from pbe.demo.tables.variants import BOX_MASKS, FULL, Variant
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.names import METHOD, TEXT_CAPTION, TEXT_INPAINTING
from pbe.evaluation.painting.methods import Models
from pbe.evaluation.painting.processes import PaintJob, Placement, Sampling, paint_cases
from pbe.types import Progress, no_progress


@dataclass(frozen=True)
class PictureSet:
    """All that one model paints with one seed: its folder of results has a folder for each source."""

    name: str
    models: Models
    seed: int
    folder: Path
    sources: Sequence[Source]

    def results(self, source: Source) -> Path:
        """Return the folder of a source's pictures."""
        return self.folder / source.bench / source.method(self.seed)


def sources_of(variant: Variant, scale: float, scales: Sequence[float]) -> list[Source]:
    """Return what a variant paints: the full method at all `scales`, the others at `scale`, or unguided at 1."""
    if not variant.is_guided:
        return [Source(variant.name, UNGUIDED)]
    if variant == BOX_MASKS:
        return [Source(variant.name, scale, bench) for bench in (BOX_BENCH, IRREGULAR_BENCH)]
    assert variant == FULL, variant
    return [*(Source(variant.name, each) for each in scales), Source(variant.name, scale, IRREGULAR_BENCH)]


def text_sources(scale: float) -> list[Source]:
    """Return what the prior paints, conditioned by text."""
    return [Source(method, scale) for method in (TEXT_INPAINTING, TEXT_CAPTION)]


def paint_set(
    pictures: PictureSet,
    benches: Mapping[str, Bench],
    num_cases: Callable[[Source], int],
    sampling: Sampling,
    placement: Placement,
    progress: Progress = no_progress,
) -> None:
    """Paint what is missing of the first cases of each source; `sampling.seed` must be the set's seed."""
    assert sampling.seed == pictures.seed
    for name, bench in benches.items():
        jobs = [_job(pictures, source, num_cases(source)) for source in pictures.sources if source.bench == name]
        if jobs:
            paint_cases(pictures.models, bench, jobs, sampling=sampling, placement=placement, progress=progress)


def _job(pictures: PictureSet, source: Source, num_cases: int) -> PaintJob:
    method = source.painter if source.painter in (TEXT_INPAINTING, TEXT_CAPTION) else METHOD
    return PaintJob(source.guidance, num_cases, pictures.results(source), method)
