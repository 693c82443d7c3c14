"""Two registered versions compared on the cases that both were evaluated on, as the gate compares them.

Every interval has a confidence of 95 % of its own: the gate's are wider, because one of its metrics is enough.
"""

from pbe.evaluation.names import METHOD
from pbe.evaluation.scoring.metric_table import ACCURACY, METRICS
from pbe.serving.registry.comparisons import CORRECT, FID, Comparison, Difference, MethodScores
from pbe.serving.registry.evaluations import Evaluation
from pbe.serving.registry.gate import WITHOUT_CASES
from pbe.serving.registry.version_evaluations import evaluation_keys, evaluation_of
from pbe.serving.registry.version_files import Version

CONFIDENCE = 0.95
DRAWS = 2000
SEED = 0


def compare(first: Version, second: Version, tracking_uri: str) -> tuple[list[Difference], str]:
    """Return every metric of the first version minus that of the second; without any, a note says why.

    Of several evaluations that both carry, the newest of the first one counts.
    """
    shared = [key for key in evaluation_keys(first) if key in evaluation_keys(second)]
    key = shared[-1] if shared else ""
    one, other = (evaluation_of(version, key, tracking_uri) for version in (first, second))
    for version, evaluation in ((first, one), (second, other)):
        if evaluation is None:
            return [], f"not comparable: version {version.version} carries no scores of single cases"
    assert one is not None
    assert other is not None
    if what := one.difference_in_conditions(other):
        return [], (
            f"not comparable: version {second.version} was evaluated with "
            + what.replace("the challenger", f"version {first.version}")
        )
    names = (f"version {first.version}", f"version {second.version}")
    return _differences(one, other, *names), ""


def _differences(one: Evaluation, other: Evaluation, first: str, second: str) -> list[Difference]:
    a, b = one.method(METHOD, first), other.method(METHOD, second)
    comparison = Comparison(a.case_ids, one.reference, DRAWS, SEED)
    return [comparison.difference(metric, second, a, b, CONFIDENCE) for metric in _metrics(a, b)]


def _metrics(a: MethodScores, b: MethodScores) -> list[str]:
    """Return the metrics that both versions have, in the order of tables, then the accuracies of attributes."""
    has_features = a.features is not None and b.features is not None
    means = [name for name in METRICS if name not in WITHOUT_CASES and a.has(name) and b.has(name)]
    shares = [name.removesuffix(CORRECT) + ACCURACY for name in a.columns if name.endswith(CORRECT) and b.has(name)]
    return [FID] * has_features + means + shares
