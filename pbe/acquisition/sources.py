"""The sources of images and boxes that `acquire.source` names, opened: the demo world, OpenImages, a bucket, folders.

`demo` and `openimages` are the same two places, images in an unsigned bucket and annotation files over HTTP, under
OpenImages' keys. One's own data, in `s3` or in a `folder`, are `{split}/*.jpg` or `images/{split}/*.jpg` (s3: the
former) beside `annotations/*.csv`, or as `acquire` leaves them, or in one of the layouts of `pbe.acquisition.importers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pbe.acquisition.image_shards_store import ArchiveStore, is_archive
from pbe.acquisition.importers.annotations import folder_of
from pbe.acquisition.importers.conversion import SOURCES, describe
from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.acquisition.stores import FileStore, FolderStore, HttpStore, S3Connection, S3Store, Store
from pbe.dataset import openimages
from pbe.dataset.openimages import AnnotationFile
from pbe.errors import UserError
from pbe.settings import Acquire

BUCKET_SOURCES = ("demo", "openimages", "s3")


class Source(NamedTuple):
    """A source, opened: its two stores, and how it names annotation files."""

    images: Store
    annotations: Store
    public_names: bool  # annotation files under OpenImages' keys, not in a folder `annotations`
    has_world: bool | None  # the demo world's own file is there; None: perhaps
    skipped: Mapping[str, int] = {}  # what a reader of own data left out, by reason

    def annotation_keys(self, file: AnnotationFile) -> tuple[str, ...]:
        return (file.key,) if self.public_names else tuple(f"annotations/{name}" for name in file.aliases)


def open_source(
    settings: Acquire, seed: int, work: Path, endpoint_url: str | None = None, database: Database | None = None
) -> Source:
    """Open what `acquire.source` names; own data are told in OpenImages' columns inside the folder `work`.

    Raises UserError naming the key of params.yaml, or the file of the source, that is missing or wrong.
    """
    endpoint = endpoint_url or settings.endpoint_url
    if settings.source in SOURCES:
        described = describe(settings, seed, work, database)
        return Source(FileStore(described.images), FolderStore(work), False, False, described.skipped)
    if settings.source == "folder":
        root = folder_of(settings)
        if is_archive(root):
            return Source(ArchiveStore(root), FolderStore(root), False, None)
        has_images_folder = (root / "images").is_dir()
        return Source(FolderStore(root / "images" if has_images_folder else root), FolderStore(root), False, None)
    images = open_bucket(settings, endpoint)
    if settings.source == "s3":
        return Source(images, images, False, None)
    demo = settings.source == "demo"
    url = f"{endpoint}/{openimages.ANNOTATIONS_BUCKET}" if demo else settings.annotations_url
    return Source(images, HttpStore(url, settings.max_attempts), True, demo)


def open_bucket(settings: Acquire, endpoint_url: str | None = None) -> S3Store:
    """The images of a source in BUCKET_SOURCES; raises UserError as `open_source` does."""
    endpoint = endpoint_url or settings.endpoint_url
    if settings.source == "demo" and endpoint is None:
        raise UserError("acquire.source: demo needs the endpoint of the demo world; start it with serve_bucket")
    bucket, prefix = _s3_root(settings) if settings.source == "s3" else (openimages.IMAGES_BUCKET, "")
    return S3Store(S3Connection(endpoint, settings.source != "s3"), bucket, prefix, settings.max_attempts)


def _s3_root(settings: Acquire) -> tuple[str, str]:
    root = settings.root or ""
    bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
    if not root.startswith("s3://") or not bucket:
        raise UserError(f"acquire.root: {settings.root!r} is no s3://bucket/prefix, which acquire.source: s3 needs")
    return bucket, f"{prefix}/" if prefix else ""
