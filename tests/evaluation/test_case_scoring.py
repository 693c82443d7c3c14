"""Scoring in one pass: what is decoded, what the scorers see, and what a killed scoring leaves."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pbe.errors import UserError
from pbe.evaluation.benches.bench import Bench, Case, result_path, write_image
from pbe.evaluation.encoders.features import CorrectedFeatures, ProtocolFeatures
from pbe.evaluation.encoders.protocol import FeatureEncoder
from pbe.evaluation.scorers.paper import UnmaskedScorer
from pbe.evaluation.scoring import cases as case_scoring
from pbe.evaluation.scoring.case_scores import CaseBatch, Method, MethodScores, painted_method
from pbe.evaluation.scoring.cases import read_ahead, score_cases, scoring_key
from pbe.evaluation.scoring.parts import ScoreParts, join
from pbe.runtime.code_digest import code_modules
from pbe.types import Image


class Brightness:
    """Scores the mean of a result and the mean of its exemplar; counts how often it does so."""

    columns = ("brightness", "exemplar_brightness")
    key = "1"

    def __init__(self) -> None:
        self.num_results = self.num_exemplars = 0

    def score(self, batch: CaseBatch, results: Sequence[Image]) -> Mapping[str, NDArray[np.float64]]:
        self.num_results += len(results)
        exemplars = batch.once("exemplar brightness", lambda: self._exemplars(batch))
        return dict(zip(self.columns, (np.array([r.mean() for r in results]), exemplars), strict=True))

    def _exemplars(self, batch: CaseBatch) -> NDArray[np.float64]:
        self.num_exemplars += len(batch)
        return np.array([case.exemplar.mean() for case in batch.cases])


@pytest.fixture
def encoders(encoder: FeatureEncoder) -> dict[str, ProtocolFeatures]:
    return {"corrected": CorrectedFeatures(encoder)}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_scoring, "BATCH_SIZE", 5)


def source(case: Case) -> Image:
    return case.source


def darker(case: Case) -> Image:
    return case.source // 2


def same(first: MethodScores, second: MethodScores) -> bool:
    return (
        first.ids == second.ids
        and list(first.columns) == list(second.columns)
        and all((first.columns[name] == second.columns[name]).all() for name in first.columns)
        and all((first.features[name] == second.features[name]).all() for name in first.features)
    )


def test_every_method_has_a_row_for_each_case(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    methods = [Method("source", source), Method("darker", darker)]
    scores = score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path, "a"))
    cases = [bench.case(i) for i in bench.ids]
    assert list(scores) == ["source", "darker"]
    assert scores["darker"].ids == bench.ids
    columns = scores["darker"].columns
    np.testing.assert_array_equal(columns["brightness"], [(c.source // 2).mean() for c in cases])
    np.testing.assert_array_equal(columns["exemplar_brightness"], [c.exemplar.mean() for c in cases])
    np.testing.assert_array_equal(columns["mask_frac"], [(c.mask == 1).mean() for c in cases])
    np.testing.assert_array_equal(columns["exemplar_px"], [min(c.exemplar.shape[:2]) for c in cases])
    expected = encoders["corrected"].whole([c.source // 2 for c in cases])
    np.testing.assert_allclose(scores["darker"].features["corrected"], expected, atol=1e-6)


def test_each_case_is_decoded_once_for_all_methods_and_scorers(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[int] = Counter()
    results: Counter[int] = Counter()
    case_of = Bench.case

    def counted(self: Bench, case_id: int) -> Case:
        decoded[case_id] += 1
        return case_of(self, case_id)

    def counted_source(case: Case) -> Image:
        results[case.id] += 1
        return case.source

    monkeypatch.setattr(Bench, "case", counted)
    scorer = Brightness()
    methods = [Method("source", counted_source), Method("darker", darker), Method("again", source)]
    score_cases(bench, methods, [scorer], encoders, ScoreParts(tmp_path, "a"))
    assert decoded == results == Counter(bench.ids)
    assert (scorer.num_results, scorer.num_exemplars) == (3 * len(bench), len(bench))


class Killed(BaseException):
    """Ends a scoring where it is."""


@pytest.mark.parametrize("last", [0, 1, 2, 4, 5])
def test_a_scoring_that_is_killed_goes_on_with_the_same_bits(
    last: int, bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    methods = [Method("source", source), Method("darker", darker)]
    undisturbed = score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path / "whole", "a"))
    calls = 0

    def progress(done: int, total: int, note: str = "") -> None:
        nonlocal calls
        calls += 1
        if calls > last:
            raise Killed

    with pytest.raises(Killed):
        score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path / "killed", "a"), progress)
    scorer = Brightness()
    resumed = score_cases(bench, methods, [scorer], encoders, ScoreParts(tmp_path / "killed", "a"))
    assert all(same(resumed[name], undisturbed[name]) for name in undisturbed)
    assert scorer.num_results < 2 * len(bench) or last == 0


def test_only_what_has_changed_is_scored_again(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    def num_scored(methods: Sequence[Method], key: str = "a") -> int:
        scorer = Brightness()
        score_cases(bench, methods, [scorer], encoders, ScoreParts(tmp_path, key))
        return scorer.num_results

    methods = [Method("source", source), Method("darker", darker, key="1")]
    assert num_scored(methods) == 2 * len(bench)
    assert num_scored(methods) == 0
    assert num_scored([*methods, Method("again", source)]) == len(bench)
    assert num_scored([methods[0], Method("darker", darker, key="2")]) == len(bench)
    assert num_scored(methods, key="b") == 2 * len(bench)


def test_the_key_of_painted_results_is_their_contents_not_their_times(bench: Bench, tmp_path: Path) -> None:
    for case_id in bench.ids:
        write_image(result_path(tmp_path, case_id), bench.case(case_id).source)
    key = painted_method("painted", tmp_path, bench).key
    first = result_path(tmp_path, bench.ids[0])
    os.utime(first, (0, 0))
    assert painted_method("painted", tmp_path, bench).key == key
    write_image(first, 255 - bench.case(bench.ids[0]).source)
    assert painted_method("painted", tmp_path, bench).key != key


def test_a_part_that_is_damaged_is_scored_again(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    methods = [Method("source", source)]
    first = score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path, "a"))
    part = sorted((tmp_path / "source").iterdir())[1]
    part.write_bytes(part.read_bytes()[:-100])
    scorer = Brightness()
    second = score_cases(bench, methods, [scorer], encoders, ScoreParts(tmp_path, "a"))
    assert scorer.num_results == 5
    assert same(first["source"], second["source"])


def test_parts_of_other_methods_can_be_removed(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    parts = ScoreParts(tmp_path, "a")
    score_cases(bench, [Method("source", source), Method("darker", darker)], [Brightness()], encoders, parts)
    parts.keep_only({"source"})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_method_may_have_fewer_cases_than_the_bench(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    missing = frozenset(bench.ids[5:10]) | {bench.ids[1]}
    methods = [Method("source", source), Method("some", source, missing=missing), Method("first", source, num_cases=7)]
    scores = score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path, "a"))
    assert scores["some"].ids == tuple(i for i in bench.ids if i not in missing)
    assert scores["first"].ids == bench.ids[:7]
    whole = dict(zip(scores["source"].ids, scores["source"].columns["brightness"], strict=True))
    for name in ("some", "first"):
        np.testing.assert_array_equal(scores[name].columns["brightness"], [whole[i] for i in scores[name].ids])
    with pytest.raises(UserError, match="none: has no result of the bench"):
        score_cases(bench, [Method("none", source, num_cases=0)], [], encoders, ScoreParts(tmp_path, "a"))


def test_a_method_may_have_scorers_of_its_own(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    methods = [Method("source", source, scorers=(Brightness(),)), Method("darker", darker)]
    scores = score_cases(bench, methods, [], encoders, ScoreParts(tmp_path, "a"))
    assert "brightness" in scores["source"].columns
    assert "brightness" not in scores["darker"].columns


def test_a_result_of_another_size_is_named(bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path) -> None:
    def small(case: Case) -> Image:
        return np.zeros((2, 3, 3), np.uint8) if case.id == bench.ids[3] else case.source

    with pytest.raises(UserError, match=r"^mine: the result of case 3 is 3 x 2 px, but its source is 32 x 32 px$"):
        score_cases(bench, [Method("mine", small)], [], encoders, ScoreParts(tmp_path, "a"))


def test_progress_counts_results_and_those_of_an_earlier_run(
    bench: Bench, encoders: dict[str, ProtocolFeatures], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    methods = [Method("source", source), Method("darker", darker)]
    for _ in range(2):
        score_cases(bench, methods, [Brightness()], encoders, ScoreParts(tmp_path, "a"), progress)
    assert seen == [(0, 24), (5, 24), (10, 24), (15, 24), (20, 24), (22, 24), (24, 24), (24, 24)]


def test_the_key_names_the_bench_the_code_the_scorers_and_the_encoders(encoders: dict[str, ProtocolFeatures]) -> None:
    key = scoring_key("bench", [Brightness()], encoders)
    other = Brightness()
    other.key = "2"
    assert key == scoring_key("bench", [Brightness()], encoders)
    assert key != scoring_key("another", [Brightness()], encoders)
    assert key != scoring_key("bench", [other], encoders)
    assert key != scoring_key("bench", [Brightness()], {"official": encoders["corrected"]})


def test_reading_ahead_keeps_the_order_and_one_read_in_advance() -> None:
    started: list[int] = []

    def read(number: int) -> int:
        started.append(number)
        return number

    reads = read_ahead(iter([lambda n=n: read(n) for n in range(5)]))
    assert next(reads) == 0
    assert len(started) <= 2
    assert list(reads) == [1, 2, 3, 4]


def test_an_error_while_reading_ahead_is_raised_where_its_result_is_due() -> None:
    def fail() -> int:
        raise ValueError("broken")

    reads = read_ahead(iter([lambda: 1, fail]))
    assert next(reads) == 1
    with pytest.raises(ValueError, match="broken"):
        next(reads)


def test_no_parts_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="no cases to score"):
        join([])


def test_the_code_of_the_metrics_is_not_that_of_painting(encoders: dict[str, ProtocolFeatures]) -> None:
    roots: list[str] = []

    def keep(*given: str) -> str:
        roots.extend(given)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_scoring, "digest_code", keep)
        case_scoring.metrics_code([UnmaskedScorer(), Brightness()], encoders)
    modules = code_modules(*roots)
    assert "pbe.evaluation.scorers.paper" in modules
    assert {"pbe.evaluation.metrics.preservation", "pbe.evaluation.metrics.frechet"} <= set(modules)
    assert not [m for m in modules if m.startswith(("pbe.evaluation.paint", "pbe.method.painter", "pbe.method.unet"))]
