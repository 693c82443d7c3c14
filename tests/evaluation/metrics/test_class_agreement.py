"""Class agreement, by hand and against scikit-learn's nearest centroid."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from pbe.evaluation.metrics.class_agreement import ClassMeans

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def features(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_the_class_is_that_of_the_nearest_mean() -> None:
    means = ClassMeans.of(features(EAST, [9.0, 1.0], NORTH, [0.1, 3.0]), ["a", "a", "b", "b"], ["1", "2", "3", "4"])
    found = means.agreement(features([5.0, 1.0], [1.0, 5.0], [5.0, 1.0]), ["a", "a", "b"], ["new", "new", "new"])
    assert found.tolist() == [100.0, 0.0, 0.0]


def test_it_is_scikit_learns_nearest_centroid_when_nothing_is_left_out() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 6))
    labels = [f"class {n % 3}" for n in range(60)]
    training, others = (np.stack([centres[n % 3] + rng.standard_normal(6) for n in range(60)]) for _ in range(2))
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (training, others)]
    reference = NearestCentroid(metric="euclidean").fit(units[0], labels)
    reference.centroids_ /= np.linalg.norm(reference.centroids_, axis=1, keepdims=True)  # so that nearest = by cosine
    expected = [
        100.0 * (predicted == label) for predicted, label in zip(reference.predict(units[1]), labels, strict=True)
    ]
    means = ClassMeans.of(training.astype(np.float32), labels, [f"box {n}" for n in range(60)])
    found = means.agreement(others.astype(np.float32), labels, ["new"] * 60)
    assert found.tolist() == expected
    assert 0 < found.mean() < 100


def test_an_exemplar_is_not_its_own_evidence() -> None:
    """Of class a, one exemplar looks like class b. Its copy is taken for b, although a's mean with it would be near."""
    means = ClassMeans.of(features(EAST, NORTH, NORTH), ["a", "a", "b"], ["1", "2", "3"])
    assert means.agreement(features(NORTH), ["a"], ["2"]).tolist() == [0.0]
    assert np.isnan(means.agreement(features(NORTH), ["b"], ["3"])).all()  # no other exemplar of b


def test_a_box_that_several_cases_have_counts_once_and_is_left_out_wholly() -> None:
    means = ClassMeans.of(features(NORTH, NORTH, EAST, NORTH), ["a", "a", "a", "b"], ["1", "1", "2", "3"])
    assert means.units.shape == (3, 2)
    assert means.agreement(features(NORTH), ["a"], ["1"]).tolist() == [0.0]


def test_where_it_is_not_defined() -> None:
    means = ClassMeans.of(features(EAST, EAST, NORTH), ["a", "a", ""], ["1", "2", "3"])
    assert means.classes == ("a",)
    assert np.isnan(means.agreement(features(EAST, EAST), ["a", "unknown"], ["1", "2"])).all()  # one class only
    none = ClassMeans.of(features(EAST), [""], ["1"])
    assert np.isnan(none.agreement(features(EAST), [""], ["1"])).all()
    with pytest.raises(ValueError, match="1 features, 2 labels, 1 boxes"):
        ClassMeans.of(features(EAST), ["a", "b"], ["1"])
