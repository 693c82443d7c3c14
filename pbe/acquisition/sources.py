"""The sources that `acquire.source` names: a demo world, OpenImages, a bucket, a folder, other formats.

`demo` and `openimages` have the same layout: images in a public bucket and annotation files over HTTP, under the keys
of OpenImages. Your own data, in `s3` or in a `folder`, are `{split}/*.jpg` (in a folder also `images/{split}/*.jpg`)
beside `annotations/*.csv`, or what `acquire` itself writes, or one of the formats of `pbe.acquisition.importers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pbe.acquisition.image_shards_store import ImageShardsStore, is_acquired
from pbe.acquisition.importers.annotations import folder_of
from pbe.acquisition.importers.conversion import SOURCES, import_dataset
from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.acquisition.remote_stores import HttpStore, S3Store
from pbe.acquisition.stores import FileStore, FolderStore, Store
from pbe.dataset import openimages
from pbe.dataset.openimages import AnnotationFile
from pbe.errors import UserError
from pbe.settings import Acquire


class Source(NamedTuple):
    """An open source: its two stores, and how it names annotation files."""

    images: Store
    annotations: Store
    public_names: bool = False  # annotation files have OpenImages' keys, and are not in a folder `annotations`
    skipped: Mapping[str, int] = {}  # what an importer left out, by reason
    adjusted: Mapping[str, int] = {}  # what an importer found or corrected, by kind

    def annotation_keys(self, file: AnnotationFile) -> tuple[str, ...]:
        return (file.key,) if self.public_names else tuple(f"annotations/{name}" for name in file.aliases)


def open_source(
    settings: Acquire, seed: int, work: Path, endpoint_url: str | None = None, database: Database | None = None
) -> Source:
    """Open the source that `acquire.source` names; other formats are converted into the folder `work`.

    `endpoint_url` replaces `acquire.endpoint_url`. Raises UserError naming the key of params.yaml, or the file of the
    source, that is missing or invalid.
    """
    endpoint = endpoint_url or settings.endpoint_url
    if settings.source in SOURCES:
        imported = import_dataset(settings, seed, work, database)
        counted = imported.skipped, imported.adjusted
        return Source(FileStore(imported.images), FolderStore(work), False, *counted)
    if settings.group_file is not None:
        raise UserError(
            f"acquire.group_file: not read with acquire.source: {settings.source}, whose groups are in "
            "annotations/train-image-groups.csv and annotations/validation-image-groups.csv; set it to null"
        )
    if settings.source == "folder":
        root = folder_of(settings)
        if is_acquired(root):
            return Source(ImageShardsStore(root), FolderStore(root))
        has_images_folder = (root / "images").is_dir()
        return Source(FolderStore(root / "images" if has_images_folder else root), FolderStore(root))
    if settings.source == "s3":
        bucket, prefix = _split_s3_root(settings)
        store = S3Store(bucket, prefix, settings.max_attempts, endpoint)
        return Source(store, store)
    is_demo = settings.source == "demo"
    if is_demo and endpoint is None:
        raise UserError("acquire.source: demo needs the endpoint of the demo world; start it with serve_bucket")
    images = S3Store(openimages.IMAGES_BUCKET, "", settings.max_attempts, endpoint, unsigned=True)
    url = f"{endpoint}/{openimages.ANNOTATIONS_BUCKET}" if is_demo else settings.annotations_url
    return Source(images, HttpStore(url, settings.max_attempts), public_names=True)


def _split_s3_root(settings: Acquire) -> tuple[str, str]:
    """Return the bucket and the key prefix that acquire.root names."""
    root = settings.root or ""
    bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
    if not root.startswith("s3://") or not bucket:
        raise UserError(f"acquire.root: {settings.root!r} is not s3://bucket/prefix, which acquire.source: s3 needs")
    return bucket, f"{prefix}/" if prefix else ""
