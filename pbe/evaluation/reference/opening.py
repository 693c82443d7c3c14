"""The statistics of the real images that `evaluate.real` names: a folder, encoded once, or a file that has them."""

from pathlib import Path

from pbe.errors import UserError
from pbe.evaluation.encoders.features import ProtocolFeatures
from pbe.evaluation.reference.images import reference_images
from pbe.evaluation.reference.statistics import (
    ReferenceStatistics,
    cached_statistics,
    make_reference_statistics,
    read_reference_statistics,
    stat_key,
)
from pbe.runtime.code_digest import digest_code
from pbe.types import Progress, no_progress


def open_reference(
    real: Path,
    raw: Path,
    image_px: int,
    features: ProtocolFeatures,
    *,
    limit: int,
    seed: int,
    official: bool,
    cache: Path,
    progress: Progress = no_progress,
) -> ReferenceStatistics:
    """Return the statistics of up to `limit` real images at the bench's `image_px`, or those in the file `real`.

    Statistics of a folder are kept in the file `cache`, and made again when an image, the encoder, an argument or the
    code has changed. `official` asks for the mixture of the official QS too. Raises UserError for a file whose encoder
    or image size is another, and what `reference_images` raises.
    """
    if real.is_file():
        return _from_file(real, image_px, features)
    images = reference_images(real, raw, image_px, limit)  # it checks the folder, and decodes nothing yet
    files = stat_key(_files_behind(real, raw))
    code = digest_code(__name__, "pbe.evaluation.encoders.loading")
    facts = (features.encoder.digest, type(features).__name__, image_px, limit, seed, official, files, code)
    return cached_statistics(
        cache,
        " ".join(map(str, facts)),
        lambda: make_reference_statistics(
            images, features, image_px, total=limit, seed=seed, official=official, progress=progress
        ),
    )


def _from_file(file: Path, image_px: int, features: ProtocolFeatures) -> ReferenceStatistics:
    statistics = read_reference_statistics(file)
    statistics.check_encoder(features.encoder, f"{file} (evaluate.real)")
    if statistics.image_px not in (0, image_px):
        raise UserError(
            f"{file} (evaluate.real): statistics of images of {statistics.image_px} px, but the bench has {image_px} px"
        )
    return statistics


def _files_behind(real: Path, raw: Path) -> list[Path]:
    """Return the files whose change may change the images: of `real`, and where curation wrote it the shards."""
    shards = (raw / "images").glob("*.tar") if (real / "images.parquet").is_file() else ()
    return sorted(path for path in real.iterdir() if path.is_file()) + sorted(shards)
