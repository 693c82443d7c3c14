"""The sources of images and boxes that `acquire.source` names, opened: the demo world, OpenImages, a bucket, folders.

`demo` and `openimages` are the same two places, images in an unsigned bucket and annotation files over HTTP, under
OpenImages' keys. One's own data, in `s3` or in a `folder`, are `{split}/*.jpg` or `images/{split}/*.jpg` (s3: the
former) beside `annotations/*.csv`, or in one of the formats of `pbe.data.own`.
"""

from pathlib import Path
from typing import NamedTuple

from pbe.data import openimages
from pbe.data.openimages import AnnotationFile
from pbe.data.own import READERS, describe
from pbe.data.stores import FileStore, FolderStore, HttpStore, S3Connection, S3Store, Store
from pbe.settings import Acquire


class Source(NamedTuple):
    """A source, opened: its two stores, and how it names annotation files."""

    images: Store
    annotations: Store
    public_names: bool  # annotation files under OpenImages' keys, not in a folder `annotations`
    has_world: bool | None  # the demo world's own file is there; None: perhaps

    def annotation_keys(self, file: AnnotationFile) -> tuple[str, ...]:
        return (file.key,) if self.public_names else tuple(f"annotations/{name}" for name in file.aliases)


def open_source(settings: Acquire, seed: int, work: Path, endpoint_url: str | None = None) -> Source:
    """Open what `acquire.source` names; a foreign format is told in OpenImages' columns inside the folder `work`.

    Raises ValueError naming the key of params.yaml, or the file of the source, that is missing or wrong.
    """
    endpoint = endpoint_url or settings.endpoint_url
    if settings.source in READERS:
        files = describe(settings, _folder_root(settings), seed, work)
        return Source(FileStore(files), FolderStore(work), False, False)
    if settings.source == "folder":
        root = _folder_root(settings)
        has_images_folder = (root / "images").is_dir()
        return Source(FolderStore(root / "images" if has_images_folder else root), FolderStore(root), False, None)
    unsigned = settings.source != "s3"
    if settings.source == "demo" and endpoint is None:
        raise ValueError("acquire.source: demo needs the endpoint of the demo world; start it with serve_bucket")
    bucket, prefix = _s3_root(settings) if settings.source == "s3" else (openimages.IMAGES_BUCKET, "")
    images = S3Store(S3Connection(endpoint, unsigned), bucket, prefix, settings.max_attempts)
    if settings.source == "s3":
        return Source(images, images, False, None)
    demo = settings.source == "demo"
    url = f"{endpoint}/{openimages.ANNOTATIONS_BUCKET}" if demo else settings.annotations_url
    return Source(images, HttpStore(url, settings.max_attempts), True, demo)


def _folder_root(settings: Acquire) -> Path:
    if not settings.root:
        raise ValueError(f"acquire.root: not set; with acquire.source: {settings.source} it is the path of the folder")
    root = Path(settings.root)
    if not root.is_dir():
        raise ValueError(f"acquire.root: {root} is no folder")
    return root


def _s3_root(settings: Acquire) -> tuple[str, str]:
    root = settings.root or ""
    bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
    if not root.startswith("s3://") or not bucket:
        raise ValueError(f"acquire.root: {settings.root!r} is no s3://bucket/prefix, which acquire.source: s3 needs")
    return bucket, f"{prefix}/" if prefix else ""
