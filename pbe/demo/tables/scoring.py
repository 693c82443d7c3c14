"""Scores of all pictures of the tables, by the scorers of the evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pbe.demo.tables.pictures import PictureSet
from pbe.demo.tables.scores import Scores, Source, with_attributes
from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.features import ProtocolFeatures
from pbe.evaluation.scoring.case_scores import CaseScorer, MethodScores, painted_method
from pbe.evaluation.scoring.cases import score_cases, scoring_key
from pbe.evaluation.scoring.parts import ScoreParts
from pbe.runtime.files import digest_files
from pbe.types import Progress, no_progress

_SPACE = "corrected"  # the protocol of the features


@dataclass(frozen=True)
class ScoredBench:
    """A bench, the pictures painted into it, the scorers of its cases, and where parts of the scores are kept."""

    name: str
    bench: Bench
    scorers: Sequence[CaseScorer]
    parts: Path


def score_pictures(
    sets: Sequence[PictureSet],
    benches: Sequence[ScoredBench],
    num_cases: Callable[[Source], int],
    features: ProtocolFeatures,
    progress: Mapping[str, Progress] | None = None,
) -> Scores:
    """Score every picture once; `num_cases` says how many cases a source painted, `progress` is by the bench's name.

    What an interrupted scoring has done is kept. All sets must have pictures of the same seeds.
    """
    scored: dict[str, MethodScores] = {}
    for each in benches:
        sources = [(pictures, source) for pictures in sets for source in pictures.sources if source.bench == each.name]
        methods = [
            painted_method(source.method(own.seed), own.results(source), each.bench, num_cases(source))
            for own, source in sources
        ]
        encoders = {_SPACE: features}
        digest = digest_files(path for case_id in each.bench.ids for path in each.bench.files(case_id))
        parts = ScoreParts(each.parts, scoring_key(digest, each.scorers, encoders))
        parts.keep_only({method.name for method in methods})
        report = (progress or {}).get(each.name, no_progress)
        scored |= score_cases(each.bench, methods, each.scorers, encoders, parts, report)
    seeds = sorted({own.seed for own in sets})
    return Scores(seeds, _table(scored), {name: own.features[_SPACE] for name, own in scored.items()})


def _table(scored: Mapping[str, MethodScores]) -> pl.DataFrame:
    tables = [
        pl.DataFrame({"case_id": own.ids, "method": [name] * len(own), **own.columns}) for name, own in scored.items()
    ]
    return with_attributes(pl.concat(tables, how="diagonal"))
