"""The safe reader of pickled mixtures: what it reads, and that nothing else is run."""

import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from pbe.errors import UserError
from pbe.evaluation.reference.pickled_mixture import read_pickled_mixture


@pytest.fixture(scope="module")
def mixture() -> GaussianMixture:
    x = np.random.default_rng(0).standard_normal((200, 3)) + 5 * (np.arange(200)[:, None] % 2)
    return GaussianMixture(2, random_state=np.random.RandomState(3)).fit(x)


def save(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def older(pickled: bytes) -> bytes:
    """Return a pickle of protocol 2 as numpy 1.19 and scikit-learn 0.21 named their parts."""
    named = pickled.replace(b"cnumpy._core.", b"cnumpy.core.")
    return named.replace(b"csklearn.mixture._gaussian_mixture\n", b"csklearn.mixture.gaussian_mixture\n")


@pytest.mark.parametrize("protocol", range(6))
def test_the_mixture_of_every_pickle_protocol_scores_as_scikit_learn_does(
    mixture: GaussianMixture, tmp_path: Path, protocol: int
) -> None:
    model = read_pickled_mixture(save(tmp_path / "gmm", mixture, protocol))
    x = np.random.default_rng(1).standard_normal((20, 3))
    np.testing.assert_allclose(model.log_likelihoods(x), mixture.score_samples(x), rtol=1e-10)


def test_a_pickle_of_older_libraries_is_read(mixture: GaussianMixture, tmp_path: Path) -> None:
    pickled = older(pickle.dumps(mixture, 2))
    assert b"numpy.core.multiarray" in pickled
    assert b"_gaussian_mixture\n" not in pickled.replace(b"mixture.gaussian_mixture\n", b"")
    (tmp_path / "gmm").write_bytes(pickled)
    np.testing.assert_array_equal(read_pickled_mixture(tmp_path / "gmm").means, mixture.means_)


def test_big_endian_and_fortran_arrays_are_read(mixture: GaussianMixture, tmp_path: Path) -> None:
    other = GaussianMixture(2)
    other.__dict__ |= mixture.__dict__ | {"random_state": None}
    other.means_ = np.asfortranarray(mixture.means_).astype(">f8")
    np.testing.assert_array_equal(read_pickled_mixture(save(tmp_path / "gmm", other)).means, mixture.means_)


class Runs:
    """A pickle that runs a command when it is loaded as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    path = save(tmp_path / "gmm", Runs(tmp_path / "ran"), protocol)
    with pytest.raises(
        UserError, match=rf"^{path}: holds (posix|nt)\.system, which is no part of a mixture; it is not"
    ):
        read_pickled_mixture(path)
    assert not (tmp_path / "ran").exists()


def test_a_command_inside_a_mixture_is_refused(mixture: GaussianMixture, tmp_path: Path) -> None:
    other = GaussianMixture(2)
    other.__dict__ |= mixture.__dict__ | {"extra": Runs(tmp_path / "ran")}
    with pytest.raises(UserError, match=r"posix\.system"):
        read_pickled_mixture(save(tmp_path / "gmm", other))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [np.array([{}], object), np.array(["a"]), np.array([1j])])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match=r"holds values of type '.*', which no mixture has"):
        read_pickled_mixture(save(tmp_path / "gmm", content))


def test_other_contents_are_named_in_one_line(mixture: GaussianMixture, tmp_path: Path) -> None:
    whole = pickle.dumps(mixture, 4)
    cases = {
        "no such file": None,
        "not a pickled mixture of Gaussians": b"no pickle",
        "not a pickled mixture of Gaussians: pickle data was truncated": whole[: len(whole) // 2],
        "not a pickled mixture of Gaussians: Ran out of input": b"",
        "holds dict, not a mixture": pickle.dumps({"means_": 1}),
        "covariance_type 'diag'; QS needs 'full'": pickle.dumps(GaussianMixture(2, covariance_type="diag")),
        "not fitted": pickle.dumps(GaussianMixture(2)),
    }
    for message, content in cases.items():
        path = tmp_path / "gmm"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_pickled_mixture(path)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_are_refused(mixture: GaussianMixture, tmp_path: Path) -> None:
    other = GaussianMixture(2)
    other.__dict__ |= mixture.__dict__ | {"weights_": np.ones(5)}
    with pytest.raises(UserError, match=r"weights \(5,\), means \(2, 3\) and precisions \(2, 3, 3\) do not fit"):
        read_pickled_mixture(save(tmp_path / "gmm", other))


def test_damaged_pickles_are_errors_of_the_file_wherever_the_damage_is(
    mixture: GaussianMixture, tmp_path: Path
) -> None:
    whole, rng, path = pickle.dumps(mixture, 4), np.random.default_rng(0), tmp_path / "gmm"
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with suppress(UserError):
            read_pickled_mixture(path)
