"""Scoring methods on a bench, into metrics.json and the files that it summarises (section 4).

out/case_scores.parquet     the scores of every case and method                       (see `case_scores`)
out/features.npz            features of whole results and of real images              (see `case_scores`)
out/comparison.json         intervals, differences, and the FID of real images        (see `comparison`)
out/evaluation.json         conditions: evaluations with other conditions are not comparable
out/parts/                  scores of an interrupted run
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbe.evaluation.benches.bench import Bench
from pbe.evaluation.encoders.protocol import Features
from pbe.evaluation.metrics.quality import OFFICIAL_BATCH_SIZE
from pbe.evaluation.names import CASE_SCORES, COMPARISON, CONDITIONS, FEATURES, METHOD
from pbe.evaluation.painting.plan import UNGUIDED_SCALE, GuidanceSweep
from pbe.evaluation.reference.statistics import ReferenceStatistics
from pbe.evaluation.scorers.paper import ClipScorer, UnmaskedScorer
from pbe.evaluation.scoring.case_scores import (
    CaseScorer,
    Floats,
    Method,
    MethodScores,
    write_case_scores,
    write_features,
)
from pbe.evaluation.scoring.cases import metrics_code, score_cases, scoring_key
from pbe.evaluation.scoring.comparison import Comparison, MeasuredProtocol
from pbe.evaluation.scoring.metric_rows import classifier_row, method_row, sweep_rows
from pbe.evaluation.scoring.parts import ScoreParts
from pbe.evaluation.scoring.protocols import EvaluationProtocol, reference_facts, shares_whole_images
from pbe.runtime.files import write_json, write_text
from pbe.types import Progress, no_progress

Metrics = dict[str, Any]  # the content of metrics.json


def measured_protocols(
    protocols: Sequence[EvaluationProtocol], references: Sequence[ReferenceStatistics]
) -> list[MeasuredProtocol]:
    """Return the protocols with their references; they share the features of whole images where these are the same.

    `references` has one for each protocol, or one for all. Raises ValueError for any other number.
    """
    if len(references) == 1:
        references = list(references) * len(protocols)
    shared = shares_whole_images(protocols)
    return [
        MeasuredProtocol(protocol, reference, protocols[0].name if shared else protocol.name)
        for protocol, reference in zip(protocols, references, strict=True)
    ]


def score_results(
    bench: Bench,
    methods: Sequence[Method],
    scorers: Sequence[CaseScorer],
    protocols: Sequence[MeasuredProtocol],
    out: Path,
    *,
    bench_digest: str,
    conditions: Mapping[str, Any],
    confidence: float,
    draws: int,
    seed: int,
    sweep: GuidanceSweep | None = None,
    progress: Progress = no_progress,
) -> Metrics:
    """Score the results of all methods, write the files in `out`, and return the content of metrics.json.

    The first method is compared with all others. The CLIP score, FID, QS and, corrected, KID are those of `protocols`,
    further columns come from `scorers`. `conditions` is what else decides whether two evaluations are comparable, such
    as the sampler; metrics.json has it, too. With `sweep`, the painter's results at other guidance scales have their
    own keys in metrics.json. `progress` counts results. An interrupted scoring resumes. Raises what
    `score_cases` raises.
    """
    every: list[CaseScorer] = [*(ClipScorer(each.protocol) for each in protocols), UnmaskedScorer(), *scorers]
    encoders = {each.space: each.protocol.features for each in reversed(protocols)}
    own_scorers = [scorer for method in methods for scorer in method.scorers]
    parts = ScoreParts(out / "parts", scoring_key(bench_digest, [*every, *own_scorers], encoders))
    parts.keep_only({method.name for method in methods})
    scored = score_cases(bench, methods, every, encoders, parts, progress)
    scores = {name: _with_quality(own, protocols) for name, own in scored.items()}
    whole = {m.name: scores[m.name] for m in methods if m.num_cases is None or m.num_cases >= len(bench)}
    comparison = Comparison(bench, whole, protocols, confidence=confidence, draws=draws, seed=seed)
    subject, space = methods[0].name, protocols[0].space
    write_case_scores(out / CASE_SCORES, bench, scores)
    features = {name: own.features[space] for name, own in scores.items()}
    write_features(out / FEATURES, features, protocols[0].reference)
    write_json(out / COMPARISON, comparison.summary(subject))
    facts: dict[str, Any] = {"bench_digest": bench_digest, "num_cases": len(bench)}
    facts["metrics_code"] = metrics_code(every, encoders)
    write_json(out / CONDITIONS, facts | _measured_conditions(protocols, every) | dict(conditions))
    return _metrics(bench, comparison, scores, protocols, subject, sweep) | dict(conditions)


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def _with_quality(scores: MethodScores, protocols: Sequence[MeasuredProtocol]) -> MethodScores:
    """Return the scores with the quality of each result, where the reference has a mixture."""
    found = {f"qs{each.protocol.suffix}": _qualities(each, scores.features[each.space]) for each in protocols}
    columns = {column: values for column, values in found.items() if values is not None}
    return MethodScores(scores.ids, {**scores.columns, **columns}, scores.features)


def _qualities(each: MeasuredProtocol, features: Features) -> Floats | None:
    """Return QS of each result; the official tool leaves out the last ones, which are NaN."""
    is_official = each.protocol.name == "official"
    mixture = each.reference.official_mixture if is_official else each.reference.mixture
    if mixture is None:
        return None
    scores = mixture.scores(features)
    if is_official and len(scores) >= OFFICIAL_BATCH_SIZE:
        scores[len(scores) // OFFICIAL_BATCH_SIZE * OFFICIAL_BATCH_SIZE :] = np.nan
    return scores


def _measured_conditions(protocols: Sequence[MeasuredProtocol], scorers: Sequence[CaseScorer]) -> dict[str, Any]:
    """Return what the numbers depend on besides the results: real images, encoders and scorers."""
    encoder = protocols[0].protocol.features.encoder
    references = {f"reference_digest{each.protocol.suffix}": each.reference.digest for each in protocols}
    return {
        **references,
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "protocol": _protocol_name(protocols),
        "scorers": {type(scorer).__name__: scorer.key for scorer in scorers if scorer.key},
    }


def _protocol_name(protocols: Sequence[MeasuredProtocol]) -> str:
    return "both" if len(protocols) > 1 else protocols[0].protocol.name


def _metrics(
    bench: Bench,
    comparison: Comparison,
    scores: Mapping[str, MethodScores],
    protocols: Sequence[MeasuredProtocol],
    subject: str,
    sweep: GuidanceSweep | None,
) -> Metrics:
    swept = {sweep.method_name(scale): scale for scale in (*sweep.shown, UNGUIDED_SCALE)} if sweep else {}
    rows = {
        name: method_row(measured, scores[name], intervals=name == subject)
        for name, measured in comparison.methods.items()
    }
    metrics: Metrics = {
        "methods": {name: row for name, row in rows.items() if name == METHOD or name not in swept},
        "features": protocols[0].protocol.features.encoder.name,
        "protocol": _protocol_name(protocols),
        "num_cases": len(bench),
        "num_reused_boxes": bench.num_reused_boxes,
        **reference_facts(protocols[0].reference),
        "classifier_accuracy": classifier_row(next(iter(scores.values()))),
        "saturated": comparison.saturated,
    }
    if sweep:
        by_scale = {f"{scale:g}": scores[sweep.method_name(scale)] for scale in sweep.shown}
        metrics["guidance_scale"] = sweep.scale
        metrics["unguided"] = method_row(
            comparison.methods[sweep.method_name(UNGUIDED_SCALE)],
            scores[sweep.method_name(UNGUIDED_SCALE)],
            intervals=False,
        )
        metrics["guidance_sweep"] = sweep_rows(by_scale, min(sweep.num_cases, len(bench)))
    return metrics
