"""Painted pictures and their keys: a picture is painted again only when something that decides its pixels has changed.

The key is a digest of the weights, the code that computes pixels, the libraries, the kind of device, the precision, the
sampler and its steps, the guidance, the magnification, the seed, and the bytes of the case. The number of cases,
workers and guidance scales, and the size of a batch, are not in it. It lies in the PNG itself, as text, so that picture
and key appear together.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from pbe.evaluation.benches.bench import Bench
from pbe.runtime.files import atomic_file, digest_files
from pbe.runtime.set_aside import aside_of, discard
from pbe.types import Image

TEXT = "pbe-key"  # the keyword of the PNG's text
_KEPT = ".kept"  # where pictures lie while they change their folder


def write_painted(path: Path, image: Image, key: str) -> None:
    """Write a PNG, (H, W, 3) uint8 RGB, with its key, atomically."""
    text = PngInfo()
    text.add_text(TEXT, key)
    with atomic_file(path) as part:
        PillowImage.fromarray(image).save(part, format="PNG", pnginfo=text)


def read_key(path: Path) -> str | None:
    """Return the key in a PNG, reading no more than its header; None for a file without one."""
    try:
        with PillowImage.open(path, formats=("PNG",)) as image:
            key = image.info.get(TEXT)
            return key if isinstance(key, str) else None
    except UnidentifiedImageError:
        return None


def picture_key(recipe: Mapping[str, object]) -> str:
    """Return the key, 32 hex digits, of what decides a picture."""
    return hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=16).hexdigest()


def case_digests(bench: Bench, ids: Collection[int]) -> dict[int, str]:
    """Return a digest of the bytes of each case's files."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(ids, pool.map(lambda i: digest_files(bench.files(i)), ids), strict=True))


def keep_results(results: Path, wanted: Mapping[Path, str]) -> dict[Path, str]:
    """Keep the pictures below `results` that are `wanted` under their key, and return those that are missing.

    A picture whose key is wanted in another folder is moved or copied there: the evaluated guidance scale has another
    folder than the scales it is compared with. All other pictures are removed, or moved aside when they took long to
    paint, and every folder that is not wanted is removed. A picture that was moved aside is used when it is wanted.
    """
    have = {path: key for path in _pictures(results) if not _is_part(path) and (key := read_key(path))}
    aside, kept = aside_of(results), set(wanted.values())
    discard(
        {path: aside / f"{key}.png" for path, key in have.items() if key not in kept},
        f"evaluate: {results.name} had pictures of another model, bench or setting",
    )
    missing = {path: key for path, key in wanted.items() if have.get(path) != key}
    sources = {path.stem: path for path in aside.glob("*.png")} | {key: path for path, key in have.items()}
    found = {path: key for path, key in missing.items() if key in sources}
    for key in set(found.values()):
        _link(sources[key], results / _KEPT / f"{key}.png")
    for path, key in found.items():
        with atomic_file(path) as part:
            shutil.copyfile(results / _KEPT / f"{key}.png", part)
        (aside / f"{key}.png").unlink(missing_ok=True)
    for path in _pictures(results):
        if path not in wanted:
            path.unlink()
    _remove_folders(results, {path.parent.name for path in wanted})
    return {path: key for path, key in missing.items() if path not in found}


def _pictures(results: Path) -> list[Path]:
    return sorted(results.glob("*/*.png"))


def _is_part(path: Path) -> bool:
    """Return whether a killed process may have left the file incomplete."""
    return path.name.startswith(".")


def _link(source: Path, path: Path) -> None:
    """Give a picture a second name; where the file system has no links, copy it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path == source or path.exists():
        return
    try:
        os.link(source, path)
    except OSError:
        with atomic_file(path) as part:
            shutil.copyfile(source, part)


def _remove_folders(results: Path, names: Collection[str]) -> None:
    for folder in results.iterdir() if results.is_dir() else ():
        if folder.is_dir() and folder.name not in names:
            shutil.rmtree(folder)
