"""Files of reference statistics: what is in them, what they are good for, and when they are refused or made again."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from safetensors.numpy import save_file

from pbe.errors import UserError
from pbe.evaluation.encoders.features import CorrectedFeatures
from pbe.evaluation.encoders.protocol import PixelEncoder
from pbe.evaluation.metrics.frechet import fit_moments, frechet_distance
from pbe.evaluation.metrics.quality import QualityModel, fit_quality
from pbe.evaluation.reference.opening import open_reference
from pbe.evaluation.reference.statistics import (
    ReferenceStatistics,
    make_reference_statistics,
    read_reference_statistics,
    write_reference_statistics,
)


def images(count: int, side: int = 8) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def features(encoder: PixelEncoder) -> CorrectedFeatures:
    return CorrectedFeatures(encoder)


@pytest.fixture(scope="module")
def statistics(features: CorrectedFeatures) -> ReferenceStatistics:
    return make_reference_statistics(iter(images(70)), features, 8, total=70, seed=0)


def test_they_are_those_of_the_features_of_all_images(
    statistics: ReferenceStatistics, features: CorrectedFeatures
) -> None:
    encoded = features.whole(images(70))
    moments = fit_moments(encoded)
    assert statistics.num_images == 70
    np.testing.assert_allclose(statistics.moments.mean, moments.mean, rtol=1e-12)
    np.testing.assert_allclose(statistics.moments.covariance, moments.covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(statistics.features, encoded)
    assert frechet_distance(encoded, statistics.moments) < 1e-9
    assert statistics.mixture is not None
    assert statistics.official_mixture is not None
    assert statistics.mixture.num_components == 4  # 2 images for each of 8 dimensions
    assert statistics.official_mixture.num_components == 20
    assert statistics.mixture.score(encoded) == fit_quality(encoded, 0).score(encoded)


def test_a_file_gives_the_same_statistics_and_the_same_bytes(statistics: ReferenceStatistics, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write_reference_statistics(tmp_path / name, statistics)
    read = read_reference_statistics(tmp_path / "a.safetensors")
    assert read.digest == statistics.digest
    assert (read.encoder, read.encoder_digest, read.image_px) == ("pixels", statistics.encoder_digest, 8)
    assert read.official_mixture is not read.mixture
    write_reference_statistics(tmp_path / "c.safetensors", read)
    assert len({(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}) == 1


def test_a_mixture_of_20_components_serves_both_protocols_and_is_stored_once(
    features: CorrectedFeatures, tmp_path: Path
) -> None:
    made = make_reference_statistics(images(320), features, 8, total=320, seed=0)
    assert made.official_mixture is made.mixture
    write_reference_statistics(tmp_path / "a.safetensors", made)
    read = read_reference_statistics(tmp_path / "a.safetensors")
    assert read.official_mixture is read.mixture
    assert read.digest == made.digest


def test_the_authors_mixture_replaces_both(features: CorrectedFeatures) -> None:
    authors = QualityModel(np.ones(1), np.zeros((1, 8)), np.eye(8)[None])
    made = make_reference_statistics(images(70), features, 8, total=70, seed=0, mixture=authors)
    assert made.mixture is made.official_mixture is authors


def test_fewer_than_20_images_have_no_official_mixture_and_one_image_is_refused(features: CorrectedFeatures) -> None:
    made = make_reference_statistics(images(19), features, 8, total=19, seed=0)
    assert made.official_mixture is None
    assert made.mixture is not None
    with pytest.raises(ValueError, match="at least two images, got 1"):
        make_reference_statistics(images(1), features, 8, total=1, seed=0)


def test_the_features_kept_are_a_seeded_part_of_many(
    features: CorrectedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbe.evaluation.reference.statistics._MAX_FEATURES", 10)
    made = [make_reference_statistics(images(40), features, 8, total=40, seed=seed) for seed in (1, 1, 2)]
    assert made[0].features.shape == (10, 8)
    np.testing.assert_array_equal(made[0].features, made[1].features)
    assert not np.array_equal(made[0].features, made[2].features)
    assert made[0].num_images == 40


def test_progress_counts_images(features: CorrectedFeatures) -> None:
    seen: list[tuple[int, int]] = []
    make_reference_statistics(
        images(70), features, 8, total=100, seed=0, progress=lambda done, total, note="": seen.append((done, total))
    )
    assert seen == [(32, 100), (64, 100), (70, 100), (70, 70)]


def test_an_npz_of_pytorch_fid_is_enough_for_fid(statistics: ReferenceStatistics, tmp_path: Path) -> None:
    path = tmp_path / "coco.npz"
    np.savez(path, mu=statistics.moments.mean, sigma=statistics.moments.covariance)
    read = read_reference_statistics(path)
    assert frechet_distance(read.moments, statistics.moments) < 1e-9
    assert read.mixture is read.official_mixture is None
    assert len(read.features) == 0
    np.savez(path, mu=np.array([{}], object), sigma=np.eye(2))
    with pytest.raises(UserError, match=f"^{path}: not a file of reference statistics: Object arrays cannot be loaded"):
        read_reference_statistics(path)


def test_other_and_damaged_files_are_refused_in_one_line(statistics: ReferenceStatistics, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match=r"no such file; see evaluate\.real"):
        read_reference_statistics(path)
    write_reference_statistics(path, statistics)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"^{path}: not a file of reference statistics: "):
        read_reference_statistics(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=f"^{path}: damaged: its numbers do not have the digest"):
        read_reference_statistics(path)
    save_file({"mean": np.zeros(2)}, path)
    with pytest.raises(UserError, match="holds no reference statistics; make them with `pbe reference`"):
        read_reference_statistics(path)
    bad = tmp_path / "a.npz"
    for arrays, message in (
        ({"mu": np.zeros(3)}, "lacks covariance"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"mean of shape \(3,\) and a covariance of \(2, 2\) do not fit"),
    ):
        np.savez(bad, **arrays)
        with pytest.raises(UserError, match=message):
            read_reference_statistics(bad)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    real = tmp_path / "real"
    real.mkdir()
    for number, image in enumerate(images(24, 12)):
        PillowImage.fromarray(image).save(real / f"{number:03d}.png")
    return real


def test_a_folder_is_encoded_once_until_something_changes(
    folder: Path, features: CorrectedFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, encoded = tmp_path / "reference.safetensors", []

    def whole(self: CorrectedFeatures, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        encoded.append(len(images))
        return plain(self, images)

    plain = CorrectedFeatures.whole
    monkeypatch.setattr(CorrectedFeatures, "whole", whole)

    def opened(image_px: int = 8, seed: int = 0, official: bool = False) -> ReferenceStatistics:
        arguments = {"limit": 100, "seed": seed, "official": official}
        return open_reference(folder, tmp_path, image_px, features, cache=cache, **arguments)

    first, again = opened(), opened()
    assert encoded == [24]
    assert again.digest == first.digest
    opened(image_px=6)
    opened(image_px=6, seed=1)
    opened(image_px=6, seed=1, official=True)
    assert encoded == [24] * 4
    (folder / "new.png").write_bytes((folder / "000.png").read_bytes())
    assert opened(image_px=6, seed=1, official=True).num_images == 25
    os.utime(folder / "new.png", ns=(0, 0))
    opened(image_px=6, seed=1, official=True)
    assert encoded == [24] * 4 + [25] * 2


def test_a_file_takes_the_place_of_a_folder_unless_it_is_of_another_encoder_or_size(
    statistics: ReferenceStatistics, features: CorrectedFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "coco.safetensors", tmp_path / "unused.safetensors"
    write_reference_statistics(path, statistics)

    def opened(image_px: int) -> ReferenceStatistics:
        return open_reference(path, tmp_path, image_px, features, limit=5, seed=0, official=True, cache=cache)

    assert opened(8).digest == statistics.digest
    assert not cache.exists()
    with pytest.raises(UserError, match=r"\(evaluate\.real\): statistics of images of 8 px, but the bench has 16 px"):
        opened(16)
    monkeypatch.setattr(features.encoder, "digest", "other")
    with pytest.raises(UserError, match=r"\(evaluate\.real\): statistics of features of another encoder \(pixels, 0\)"):
        opened(8)
