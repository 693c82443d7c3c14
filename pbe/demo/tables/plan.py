"""What a run of the tables trains and paints."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pbe import layout
from pbe.demo.tables.directions import UNGUIDED
from pbe.demo.tables.pictures import PictureSet, sources_of, text_sources
from pbe.demo.tables.projects import FOLDER, Project, open_project
from pbe.demo.tables.scores import BOX_BENCH, Source
from pbe.demo.tables.variants import ABLATION, FULL, VARIANTS
from pbe.evaluation.benches.bench_folder import read_bench
from pbe.evaluation.painting.methods import Models
from pbe.settings import Settings


@dataclass(frozen=True)
class Plan:
    """The models and pictures of a run in the project at `root`.

    The ablation is painted on the whole bench, everything else on its first `sweep_cases` cases. `scales` are the
    guidance scales of the full method.
    """

    root: Path
    settings: Settings
    seeds: Sequence[int]
    scales: Sequence[float]
    sweep_cases: int
    num_workers: int

    @property
    def scale(self) -> float:
        """The evaluated guidance scale."""
        return self.settings.evaluate.guidance_scale

    @cached_property
    def bench_cases(self) -> int:
        """The number of cases of the project's bench."""
        return len(read_bench(self.root / layout.BENCH))

    @property
    def first_cases(self) -> int:
        """The number of cases that every source paints."""
        return min(self.sweep_cases, self.bench_cases)

    def num_cases(self, source: Source) -> int:
        """Return how many cases of the bench a source paints."""
        in_ablation = source.painter in {variant.name for variant in ABLATION} and source.bench == BOX_BENCH
        return self.bench_cases if in_ablation and source.guidance in (UNGUIDED, self.scale) else self.first_cases

    @cached_property
    def projects(self) -> list[Project]:
        """The models' projects, seed by seed, so that a run that was stopped has whole tables of the first seeds."""
        return [open_project(self.root, variant, self.settings, seed) for seed in self.seeds for variant in VARIANTS]

    @property
    def picture_sets(self) -> list[PictureSet]:
        """All pictures: those of every model, and those of the prior conditioned by text."""
        return [pictures for project in self.projects for pictures in self._sets_of(project)]

    def _sets_of(self, project: Project) -> list[PictureSet]:
        seed, variant = project.settings.seed, project.variant
        models = Models(project.folder / layout.MODEL, self.root / layout.BACKBONE)
        sources = sources_of(variant, self.scale, self.scales)
        own = PictureSet(project.name, models, seed, project.folder / "results", sources)
        if variant != FULL:
            return [own]
        folder = self.root / FOLDER / f"text-{seed}"
        return [own, PictureSet(folder.name, models, seed, folder / "results", text_sources(self.scale))]

    @property
    def distinct_latents(self) -> list[Project]:
        """One project for each folder of latents that the models train on."""
        return list({(project.folder / layout.LATENTS).resolve(): project for project in self.projects}.values())


def make_plan(
    root: Path,
    settings: Settings,
    seeds: Sequence[int],
    scales: Sequence[float],
    sweep_cases: int,
    num_workers: int,
    steps: int | None,
) -> Plan:
    """Return the plan of a run; `settings` are those of params.yaml.

    Every model trains in one process with the global batch of the settings, for `steps` unless it is None. The scales
    1 and `evaluate.guidance_scale`, which the tables need, are added to `scales`.
    """
    train = settings.train
    batch = train.batch_size * train.num_workers
    settings = settings.replace(
        encode=settings.encode.replace(num_workers=1),
        train=train.replace(num_workers=1, batch_size=batch, steps=steps or train.steps),
        evaluate=settings.evaluate.replace(num_workers=1),
    )
    every_scale = tuple(sorted({*scales, UNGUIDED, settings.evaluate.guidance_scale}))
    return Plan(root, settings, tuple(seeds), every_scale, sweep_cases, num_workers)
