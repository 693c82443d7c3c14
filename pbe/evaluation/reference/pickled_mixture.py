"""The authors' mixture for QS, `coco2017_gmm_k20`: a pickle of scikit-learn's GaussianMixture, read without running it.

A pickle is a program: loading one can run anything. Here it may build arrays of numbers and the plain state of a
GaussianMixture, and nothing of numpy or scikit-learn runs, so that their versions do not matter either.
"""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbe.errors import UserError, one_line
from pbe.evaluation.metrics.quality import QualityModel

_MIXTURES = {
    ("sklearn.mixture._gaussian_mixture", "GaussianMixture"),
    ("sklearn.mixture.gaussian_mixture", "GaussianMixture"),  # before 0.22
}
_CODES = frozenset(("f8", "f4", "i8", "i4", "u8", "u4", "b1"))
_MALFORMED = (
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, MemoryError, OverflowError,
    TypeError, ValueError, struct.error,
)  # fmt: skip


def read_pickled_mixture(path: Path) -> QualityModel:
    """Return the mixture in a pickle of a fitted GaussianMixture with full covariances.

    Raises UserError naming the file when it holds anything else, which is then not loaded.
    """
    try:
        with path.open("rb") as file:
            state = _Unpickler(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _MALFORMED as error:
        raise UserError(f"{path}: not a pickled mixture of Gaussians: {one_line(error)[:200]}") from None
    return _mixture(path, state)


def _mixture(path: Path, state: object) -> QualityModel:
    if not isinstance(state, _MixtureState):
        raise UserError(f"{path}: holds {type(state).__name__}, not a mixture of Gaussians")
    kind = state.values.get("covariance_type")
    if kind != "full":
        raise UserError(f"{path}: a mixture with covariance_type {kind!r}; QS needs 'full'")
    arrays = [state.values.get(name) for name in ("weights_", "means_", "precisions_cholesky_")]
    if not all(isinstance(array, _Array) and array.values is not None for array in arrays):
        raise UserError(f"{path}: a mixture that is not fitted (weights_, means_ or precisions_cholesky_ is missing)")
    weights, means, roots = (np.asarray(array.values, np.float64) for array in arrays if isinstance(array, _Array))
    components, dimensions = means.shape if means.ndim == 2 else (0, 0)
    if weights.shape != (components,) or roots.shape != (components, dimensions, dimensions) or not components:
        raise UserError(f"{path}: weights {weights.shape}, means {means.shape} and precisions {roots.shape} do not fit")
    return QualityModel(weights, means, roots)


class _MixtureState:
    """What the pickle says of a GaussianMixture."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.values = dict(state)


class _DType:
    """A type of numbers, such as f8, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _CODES:
            raise UserError(f"holds values of type {code!r}, which no mixture has; it is not loaded")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def array(self, data: bytes | bytearray) -> NDArray[Any]:
        return np.frombuffer(data, np.dtype(self.order + self.code))


class _Array:
    """An array in the making: numpy's `_reconstruct` without its arguments, whose state gives the numbers."""

    def __init__(self, *_: object) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.values = dtype.array(data).reshape(shape, order="F" if is_fortran else "C")


class _Ignored:
    """A random generator, which scoring does not need."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _from_buffer(data: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.values = dtype.array(data).reshape(shape, order="F" if order == "F" else "C")
    return array


def _scalar(dtype: _DType, data: bytes) -> object:
    return dtype.array(data)[0].item()


def _reconstructed(kind: Callable[[], object], *_: object) -> object:
    return kind()


def _latin1(text: str, *_: object) -> bytes:
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], object] = {
    **dict.fromkeys(_MIXTURES, _MixtureState),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("copy_reg", "_reconstructor"): _reconstructed,
    ("builtins", "object"): _Ignored,
    ("__builtin__", "object"): _Ignored,
    ("_codecs", "encode"): _latin1,
    **{
        (f"{core}.{module}", name): value
        for core in ("numpy.core", "numpy._core")
        for module, name, value in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    **{
        (f"numpy.random.{module}", name): _Ignored
        for module, name in (
            ("_pickle", "__randomstate_ctor"), ("_pickle", "__bit_generator_ctor"), ("_mt19937", "MT19937"),
            ("mtrand", "RandomState"), ("bit_generator", "SeedSequence"),
        )
    },
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Puts a class or function of this module in place of each that a mixture needs, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(f"holds {module}.{name}, which is no part of a mixture; it is not loaded") from None
