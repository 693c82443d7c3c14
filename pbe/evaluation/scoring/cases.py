"""Scoring every method in one pass over a bench: each case and each result is decoded once, for all scorers.

Cases are taken in batches of a fixed size, and a batch is scored for one method after the other, so that the memory
does not depend on the number of cases or methods. The next pictures are decoded while the present ones are scored. What
is done lies in `ScoreParts`: a scoring that is killed and started again returns the same bits.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, Case
from pbe.evaluation.encoders.features import ProtocolFeatures
from pbe.evaluation.scoring.case_scores import (
    EXEMPLAR_PX,
    MASK_FRAC,
    CaseBatch,
    CaseScorer,
    Floats,
    Method,
    MethodScores,
)
from pbe.evaluation.scoring.parts import ScoreParts, join
from pbe.runtime.code_digest import digest_code
from pbe.types import Image, Progress, no_progress

BATCH_SIZE = 32  # fixed: another size of batch moves the last bits of features
T = TypeVar("T")


def score_cases(
    bench: Bench,
    methods: Sequence[Method],
    scorers: Sequence[CaseScorer],
    encoders: Mapping[str, ProtocolFeatures],
    parts: ScoreParts,
    progress: Progress = no_progress,
) -> dict[str, MethodScores]:
    """Return the scores of every method by its name: columns of all scorers, and features of whole results by encoder.

    Besides the scorers' columns there are `mask_frac`, the masked share of the picture, and `exemplar_px`, the
    exemplar's shorter side. `progress` counts results. Raises UserError naming the case when a result and its source
    differ in size, and for a method without a result.
    """
    work, batches = _plan(bench, methods, parts)
    total = sum(len(ids) for own in batches.values() for ids in own)
    done = total - sum(len(unit.ids) for unit in work)
    progress(done, total)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for unit, batch, results in read_ahead(partial(unit.read, bench, pool) for unit in _taken(work)):
            scores = _score(batch, results, [*scorers, *unit.method.scorers], encoders)
            parts.write(unit.method.name, unit.method.key, scores)
            done += len(unit.ids)
            progress(done, total)
    return {name: join([parts.read(name, ids) for ids in own]) for name, own in batches.items()}


def scoring_key(bench_digest: str, scorers: Iterable[CaseScorer], encoders: Mapping[str, ProtocolFeatures]) -> str:
    """Return what decides the scores of a result, as a string: the cases, the code, the scorers and the encoders."""
    scorers = tuple(scorers)
    facts = {
        "bench": bench_digest,
        "code": metrics_code(scorers, encoders),
        "scorers": [[type(each).__name__, each.columns, each.key] for each in scorers],
        "encoders": {name: [type(f).__name__, f.encoder.digest] for name, f in sorted(encoders.items())},
    }
    return json.dumps(facts, sort_keys=True)


def metrics_code(scorers: Iterable[CaseScorer], encoders: Mapping[str, ProtocolFeatures]) -> str:
    """Return the digest of the code that computes the metrics; how results were painted is no part of it."""
    owners = [*scorers, *encoders.values(), *(features.encoder for features in encoders.values())]
    modules = {type(owner).__module__ for owner in owners}
    own = sorted(module for module in modules if module.startswith("pbe."))
    return digest_code("pbe.evaluation.scoring.cases", "pbe.evaluation.scoring.protocols", *own)


@dataclass
class _SharedBatch:
    """A batch of cases that is decoded when the first method asks for it."""

    ids: tuple[int, ...]
    _batch: CaseBatch | None = field(default=None, repr=False)

    def read(self, bench: Bench, pool: Executor) -> CaseBatch:
        if self._batch is None:
            own = bench.only(self.ids)
            self._batch = CaseBatch(tuple(pool.map(bench.case, own.ids)), own.origins)
        return self._batch


@dataclass(frozen=True)
class _Unit:
    """One batch of cases to score for one method."""

    method: Method
    shared: _SharedBatch

    @property
    def ids(self) -> tuple[int, ...]:
        return self.shared.ids

    def read(self, bench: Bench, pool: Executor) -> tuple["_Unit", CaseBatch, list[Image]]:
        """Return the cases and the method's results, checked to have their sources' sizes."""
        batch = self.shared.read(bench, pool)
        return self, batch, list(pool.map(partial(_checked_result, self.method), batch.cases))


def _checked_result(method: Method, case: Case) -> Image:
    result = method.result_of(case)
    if result.shape != case.source.shape:
        raise UserError(
            f"{method.name}: the result of case {case.id} is {_size(result)}, but its source is {_size(case.source)}"
        )
    return result


def _size(image: Image) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"


def _plan(
    bench: Bench, methods: Sequence[Method], parts: ScoreParts
) -> tuple[deque[_Unit], dict[str, list[tuple[int, ...]]]]:
    """Return the batches that are not scored yet, and all batches of each method.

    Methods that have the same cases of a batch share it.
    """
    work: deque[_Unit] = deque()
    all_batches: dict[str, list[tuple[int, ...]]] = {method.name: [] for method in methods}
    scored = {method.name: frozenset(method.ids(bench)) for method in methods}
    for name, all_ids in scored.items():
        if not all_ids:
            raise UserError(f"{name}: has no result of the bench {bench.folder}")
    for start in range(0, len(bench), BATCH_SIZE):
        shared: dict[tuple[int, ...], _SharedBatch] = {}
        for method in methods:
            ids = tuple(i for i in bench.ids[start : start + BATCH_SIZE] if i in scored[method.name])
            if not ids:
                continue
            all_batches[method.name].append(ids)
            if not parts.has(method.name, method.key, ids):
                work.append(_Unit(method, shared.setdefault(ids, _SharedBatch(ids))))
    return work, all_batches


def _taken(work: deque[_Unit]) -> Iterator[_Unit]:
    """Yield the units and forget them, so that the pictures of a finished batch leave the memory."""
    while work:
        yield work.popleft()


def _score(
    batch: CaseBatch,
    results: Sequence[Image],
    scorers: Sequence[CaseScorer],
    encoders: Mapping[str, ProtocolFeatures],
) -> MethodScores:
    columns: dict[str, Floats] = {
        MASK_FRAC: np.array([case.mask.mean() for case in batch.cases]),
        EXEMPLAR_PX: np.array([min(case.exemplar.shape[:2]) for case in batch.cases], np.float64),
    }
    for scorer in scorers:
        columns |= {name: np.asarray(values, np.float64) for name, values in scorer.score(batch, results).items()}
    features = {name: encoder.whole(results) for name, encoder in encoders.items()}
    return MethodScores(tuple(case.id for case in batch.cases), columns, features)


def read_ahead(reads: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield what each call returns, in order; one call runs in the background while its predecessor's is used."""
    with ThreadPoolExecutor(1) as reader:
        running = None
        for read in reads:
            following = reader.submit(read)
            if running is not None:
                yield running.result()
            running = following
        if running is not None:
            yield running.result()
