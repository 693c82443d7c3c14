"""What FID, QS and KID need of the real images, in one file: it can be given away, and the images need not.

    mean, covariance              of the features of all images, float64
    mixture.*                     for QS, with as many components as the images support
    official.*                    for the official QS, with 20 components; absent where `mixture` serves
    features                      of a part of the images, float32, for KID and for the floor of FID
    statistics                    in the header: number of images, their size, encoder, digests

The file is safetensors, and holds no Python objects. An .npz with `mu` and `sigma`, as pytorch-fid writes it, is read
too: it is enough for FID.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pbe.errors import UserError, one_line
from pbe.evaluation.encoders.encode import batches
from pbe.evaluation.encoders.features import ProtocolFeatures
from pbe.evaluation.encoders.protocol import FeatureEncoder, Features
from pbe.evaluation.metrics.frechet import Moments, RunningMoments
from pbe.evaluation.metrics.quality import NUM_COMPONENTS, QualityModel, fit_quality
from pbe.runtime.files import atomic_file
from pbe.types import Image, Progress, no_progress

SUFFIXES = (".safetensors", ".npz")  # of files of statistics
_HEADER = "statistics"
_MAX_FEATURES = 4000
_PARTS = ("weights", "means", "precisions_cholesky")
_BATCH_SIZE = 32


@dataclass(frozen=True)
class ReferenceStatistics:
    """Statistics of the features of real images. QS and KID are not defined where their part is missing."""

    moments: Moments
    mixture: QualityModel | None
    official_mixture: QualityModel | None
    features: Features  # (M, D), M = 0 when there are none
    image_px: int  # the side that the images were resized to
    encoder: str
    encoder_digest: str  # "" when the file does not say

    @property
    def num_images(self) -> int:
        return self.moments.num_images

    @property
    def digest(self) -> str:
        """A digest of all numbers: equal digests give equal metrics."""
        digest = hashlib.blake2b(self._header().encode(), digest_size=16)
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def check_encoder(self, encoder: FeatureEncoder, where: str) -> None:
        """Raise UserError, which begins with `where`, when the features are not those of `encoder`."""
        if self.encoder_digest and self.encoder_digest != encoder.digest:
            raise UserError(
                f"{where}: statistics of features of another encoder ({self.encoder}, {self.encoder_digest[:8]}),"
                f" not of {encoder.name} ({encoder.digest[:8]})"
            )

    def _header(self) -> str:
        facts = {
            "num_images": self.num_images,
            "image_px": self.image_px,
            "encoder": self.encoder,
            "encoder_digest": self.encoder_digest,
            "official_is_mixture": self.official_mixture is self.mixture,
        }
        return json.dumps(facts, sort_keys=True)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            "mean": self.moments.mean,
            "covariance": self.moments.covariance,
            "features": self.features,
        }
        for prefix, mixture in (("mixture", self.mixture), ("official", self._own_official)):
            if mixture is not None:
                arrays |= {f"{prefix}.{part}": getattr(mixture, part) for part in _PARTS}
        return arrays

    @property
    def _own_official(self) -> QualityModel | None:
        return None if self.official_mixture is self.mixture else self.official_mixture


def make_reference_statistics(
    images: Iterable[Image],
    features: ProtocolFeatures,
    image_px: int,
    *,
    total: int,
    seed: int,
    official: bool = True,
    mixture: QualityModel | None = None,
    progress: Progress = no_progress,
) -> ReferenceStatistics:
    """Encode images, already of `image_px`, and return their statistics. `progress` counts images out of `total`.

    Images are decoded as they are taken; the features are kept, 2 KB an image with ViT-B/32. `official` fits the
    mixture of the official QS too, where there are 20 images; `mixture`, such as the authors', replaces both. Raises
    ValueError for fewer than two images.
    """
    running, parts = RunningMoments(), []
    done = 0
    for batch in batches(images, _BATCH_SIZE):
        parts.append(features.whole(batch))
        running.add(parts[-1])
        done += len(batch)
        progress(done, max(done, total))
    progress(done, done)
    moments = running.moments()
    encoded = np.concatenate(parts)
    fitted = mixture or fit_quality(encoded, seed)
    encoder = features.encoder
    return ReferenceStatistics(
        moments,
        fitted,
        (mixture or _official_mixture(encoded, seed, fitted)) if official else None,
        _sample(encoded, seed),
        image_px,
        encoder.name,
        encoder.digest,
    )


def _official_mixture(encoded: Features, seed: int, fitted: QualityModel) -> QualityModel | None:
    if fitted.num_components == NUM_COMPONENTS:
        return fitted
    return fit_quality(encoded, seed, NUM_COMPONENTS) if len(encoded) >= NUM_COMPONENTS else None


def _sample(encoded: Features, seed: int) -> Features:
    if len(encoded) <= _MAX_FEATURES:
        return encoded
    rows = np.random.default_rng(seed).choice(len(encoded), _MAX_FEATURES, replace=False)
    return encoded[np.sort(rows)]


def cached_statistics(path: Path, key: str, make: Callable[[], ReferenceStatistics]) -> ReferenceStatistics:
    """Return the statistics in the file `path` if it was written under `key`; otherwise make and write them.

    `key` names all that decides them: images, encoder, seed.
    """
    if path.is_file() and _header_of(path).get("key") == key:
        return read_reference_statistics(path)
    statistics = make()
    write_reference_statistics(path, statistics, key)
    return statistics


def stat_key(files: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of files, which changes when one of them is replaced."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write_reference_statistics(path: Path, statistics: ReferenceStatistics, key: str = "") -> None:
    """Write the statistics to a .safetensors file, atomically; the same statistics give the same bytes."""
    header = json.dumps(json.loads(statistics._header()) | {"digest": statistics.digest, "key": key}, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in statistics._arrays().items()}
    with atomic_file(path) as part:
        save_file(arrays, part, metadata={_HEADER: header})


def read_reference_statistics(path: Path) -> ReferenceStatistics:
    """Read a file of statistics, .safetensors or .npz.

    Raises UserError naming the file when it is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; see evaluate.real")
    if path.suffix == ".npz":
        return _statistics(path, _read_npz(path), {})
    header = _header_of(path)
    if not header:
        raise UserError(f"{path}: holds no reference statistics; make them with `pbe reference`")
    with safe_open(path, "np") as file:
        statistics = _statistics(path, {name: file.get_tensor(name) for name in file.keys()}, header)  # noqa: SIM118
    if statistics.digest != header["digest"]:
        raise UserError(f"{path}: damaged: its numbers do not have the digest that it names; copy it again")
    return statistics


def _header_of(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "np") as file:
            header = (file.metadata() or {}).get(_HEADER, "{}")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a file of reference statistics: {one_line(error)}") from None
    content: dict[str, Any] = json.loads(header)
    return content


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {{"mu": "mean", "sigma": "covariance"}.get(name, name): file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a file of reference statistics: {one_line(error)}") from None


def _statistics(path: Path, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> ReferenceStatistics:
    if missing := {"mean", "covariance"} - set(arrays):
        raise UserError(f"{path}: lacks {min(missing)}")
    mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mean", "covariance"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: a mean of shape {mean.shape} and a covariance of {covariance.shape} do not fit")
    num_images = int(header.get("num_images", arrays.get("num_images", 0)))
    mixture = _read_mixture(arrays, "mixture")
    official = mixture if header.get("official_is_mixture") else _read_mixture(arrays, "official")
    return ReferenceStatistics(
        Moments(num_images, mean, covariance),
        mixture,
        official,
        np.asarray(arrays.get("features", np.empty((0, len(mean)))), np.float32),
        int(header.get("image_px", 0)),
        str(header.get("encoder", "an encoder that the file does not name")),
        str(header.get("encoder_digest", "")),
    )


def _read_mixture(arrays: Mapping[str, NDArray[Any]], prefix: Literal["mixture", "official"]) -> QualityModel | None:
    names = [f"{prefix}.{part}" for part in _PARTS]
    return QualityModel(*(arrays[name] for name in names)) if all(name in arrays for name in names) else None
