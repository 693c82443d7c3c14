"""The content of the tables: estimates of every row, differences between rows, and the directions expected of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from pbe.demo.tables import paper
from pbe.demo.tables.directions import Direction, expected_directions, source_at
from pbe.demo.tables.estimates import Estimate, Resampling
from pbe.demo.tables.scores import ATTRIBUTES_CORRECT, BOX_BENCH, FID, IRREGULAR_BENCH, Scores, Source
from pbe.demo.tables.variants import ABLATION, BOX_MASKS, FULL
from pbe.evaluation.metrics.frechet import Moments
from pbe.evaluation.names import TEXT_CAPTION, TEXT_INPAINTING
from pbe.evaluation.scoring.intervals import FrechetSample, sample_frechet

METRICS = ("clip_score", "identity", ATTRIBUTES_CORRECT, "copy_paste_score", "seam_visibility")
Found = Literal["as expected", "the opposite", "no difference"]
Content = dict[str, Any]


def all_tables(whole: "Tables", first: "Tables", scales: Sequence[float]) -> Content:
    """Return all tables: the ablation on the whole bench, and the others on the first cases, which all sources painted.

    `scales` are the guidance scales of the full method.
    """
    full = [Source(FULL.name, scale) for scale in scales]
    directions = expected_directions(whole.scale, scales)
    scored = [(each, whole if whole.scored(each) else first) for each in directions]
    return {
        "ablation": whole.ablation(),
        "guidance": [first.row(source, f"{source.guidance:g}") for source in full],
        "guidance_steps": first.steps(full),
        "conditions": first.conditions(),
        "masks": first.masks(),
        "directions": [tables.direction(each) for each, tables in scored if tables.scored(each)],
    }


class Tables:
    """Computes the tables from scores; every interval is from the same resampled seeds and cases."""

    def __init__(self, scores: Scores, real: Moments, resampling: Resampling, scale: float) -> None:
        self.scores, self.real, self.resampling, self.scale = scores, real, resampling, scale
        self._samples: dict[str, FrechetSample] = {}

    def row(self, source: Source, title: str, paper_row: paper.PaperRow | None = None) -> Content:
        """Return the estimates of one row; `paper_row` is the paper's, where it has one."""
        values = {metric: self.estimate(source, metric) for metric in (FID, *self.metrics)}
        row: Content = {"title": title, "name": source.painter, "guidance": source.guidance, "bench": source.bench}
        row["metrics"] = {metric: asdict(value) for metric, value in values.items()}
        return row if paper_row is None else row | {"paper": dict(paper_row)}

    @property
    def metrics(self) -> list[str]:
        """The metrics of `METRICS` that were scored."""
        return [metric for metric in METRICS if metric in self.scores.cases.columns]

    def ablation(self) -> list[Content]:
        """Return the paper's ablation, each row with its differences from the row above it."""
        rows: list[Content] = []
        for i, variant in enumerate(ABLATION):
            row = self.row(source_at(self.scale, variant), variant.title, paper.ABLATION[variant.name])
            if i:
                row["change"] = self.change(source_at(self.scale, ABLATION[i - 1]), source_at(self.scale, variant))
            rows.append(row)
        return rows

    def steps(self, sources: Sequence[Source]) -> list[Content]:
        """Return the differences between neighbours."""
        return [
            {"from": a.guidance, "to": b.guidance, "change": self.change(a, b)} for a, b in itertools.pairwise(sources)
        ]

    def conditions(self) -> list[Content]:
        """Return language against image: the prior conditioned by texts, and the painter."""
        titles = {TEXT_INPAINTING: "text: the class", TEXT_CAPTION: "text: the full caption"}
        image = source_at(self.scale, FULL)
        texts = [source for name in titles if self.scores.has(source := Source(name, self.scale))]
        rows = [
            self.row(source, titles[source.painter], paper.CONDITIONS["text"] if i == 0 else None)
            | {"change": self.change(source, image)}
            for i, source in enumerate(texts)
        ]
        return [*rows, self.row(image, "image", paper.CONDITIONS["image"])]

    def masks(self) -> list[Content]:
        """Return models trained on box masks and on arbitrary ones, each on both kinds of masks."""
        rows = []
        for bench in (BOX_BENCH, IRREGULAR_BENCH):
            boxes, arbitrary = (Source(variant.name, self.scale, bench) for variant in (BOX_MASKS, FULL))
            rows += [self.row(boxes, "box masks"), self.row(arbitrary, "arbitrary masks")]
            rows[-1]["change"] = self.change(boxes, arbitrary)
        return rows

    def change(self, before: Source, after: Source) -> Content:
        """Return the paired difference of every metric."""
        return {metric: asdict(self.difference(before, after, metric)) for metric in (FID, *self.metrics)}

    def estimate(self, source: Source, metric: str) -> Estimate:
        """Return a metric's mean over seeds and cases. FID is the mean of the seeds' FIDs, as everybody reports it."""
        if metric != FID:
            return self.resampling.mean(self.scores.matrix(source, metric))
        samples = self.frechet(source)
        return self.resampling.mean_of_seeds([(s.value, s.value + s.deviations) for s in samples])

    def difference(self, before: Source, after: Source, metric: str) -> Estimate:
        """Return how much a metric rises from one source to another, on the same seeds and cases.

        FIDs are compared without their bias, which differs between models.
        """
        if metric != FID:
            return self.resampling.mean(self.scores.matrix(after, metric) - self.scores.matrix(before, metric))
        pairs = zip(self.frechet(before), self.frechet(after), strict=True)
        risen = [(b.corrected - a.corrected, b.corrected - a.corrected + b.deviations - a.deviations) for a, b in pairs]
        return self.resampling.mean_of_seeds(risen)

    def frechet(self, source: Source) -> list[FrechetSample]:
        """Return FID and its draws for each seed."""
        names = [source.method(seed) for seed in self.scores.seeds]
        for name in names:
            if name not in self._samples:
                self._samples[name] = sample_frechet(self.scores.features[name], self.real, self.resampling.cases)
        return [self._samples[name] for name in names]

    def scored(self, direction: Direction) -> bool:
        """Return whether all pictures of a direction were scored, with its metric."""
        sources, number = (direction.before, direction.after), self.resampling.cases.shape[1]
        complete = all(self.scores.has(source) and self.scores.num_cases(source) == number for source in sources)
        if not complete or direction.metric == FID:
            return complete
        return direction.metric in self.scores.cases.columns and self._applies(direction)

    def _applies(self, direction: Direction) -> bool:
        before, after = (self.scores.matrix(s, direction.metric) for s in (direction.before, direction.after))
        return bool(np.isfinite(after - before).any())

    def direction(self, direction: Direction) -> Content:
        """Return a direction with what was found."""
        found = self.difference(direction.before, direction.after, direction.metric)
        agreement = found.sign * direction.sign
        verdict: Found = "as expected" if agreement > 0 else "the opposite" if agreement < 0 else "no difference"
        return {"claim": direction.claim, "metric": direction.metric, "change": asdict(found), "found": verdict}


def model_means(scores: Scores, source: Source, seed: int) -> Mapping[str, float]:
    """Return the mean scores of one model, for its run in MLflow."""
    row = list(scores.seeds).index(seed)
    metrics = [metric for metric in METRICS if metric in scores.cases.columns]
    return {metric: float(np.nanmean(scores.matrix(source, metric)[row])) for metric in metrics}
