"""The output of acquire as a source: another project's data/raw, or a copy of one."""

from pathlib import Path

import polars as pl

from pbe.acquisition.downscaling import md5_of
from pbe.acquisition.stores import Fetched, LostError
from pbe.dataset.image_shards import LOCATION, SUFFIX, ImageRef, ImageShards
from pbe.errors import UserError


class ImageShardsStore:
    """The images of a folder that holds manifest.parquet and images/*.tar, under OpenImages' keys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._shards = ImageShards(root / "images")
        images = pl.scan_parquet(root / "manifest.parquet").filter(outcome="ok")
        keys = pl.format("{}/{}.jpg", "split", "image_id").alias("key")
        self._images = images.select(keys, *LOCATION).sort("key").collect()

    def locate(self, key: str) -> str:
        return f"{self.root}: {key}"

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        fetched, content = self.read(key, known_md5)
        if content is not None:
            target.write_bytes(content)
        return fetched

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        content = self._find(key)
        fetched = Fetched(len(content), md5_of(content))
        return (fetched._replace(unchanged=True), None) if fetched.md5 == known_md5 else (fetched, content)

    def _find(self, key: str) -> bytes:
        row = int(self._images["key"].search_sorted(key))
        if row == self._images.height or self._images["key"][row] != key:
            raise LostError("missing", f"{self.locate(key)} is not in its manifest.parquet")
        try:
            return self._shards.read_bytes(ImageRef(*self._images.row(row)[1:]))
        except UserError as error:
            raise LostError("missing", str(error)) from None


def is_acquired(root: Path) -> bool:
    """Return whether `acquire` wrote the folder."""
    return (root / "manifest.parquet").is_file() and any((root / "images").glob(f"*{SUFFIX}"))
