"""Random damage to sets of own data, and what importing them must satisfy.

A damaged set is imported, or is a UserError of one line. No image is lost silently: those that the set names are kept,
missing or counted by reason.
"""

import json
import random
import shutil
import unicodedata
from pathlib import Path
from typing import Any

from fuzz_sets import FORMATS

from pbe.acquisition.importers.conversion import READERS, import_dataset
from pbe.acquisition.importers.image_identity import select_images
from pbe.acquisition.importers.image_names import is_image_name
from pbe.acquisition.importers.placement import ImportCounts
from pbe.errors import UserError, one_line
from pbe.layout import PARAMS
from pbe.settings import load_settings

IMAGE_COUNTS = ("images of split test", "image_without_boxes", "image_listed_twice")  # by `select_images`
READER_COUNTS = ("image_without_label_file", "image_without_mask")

_NUMBERS = ("0", "-1", "1e9", "NaN", "1e308", "-0.0", "", "0.5", "9" * 400, "\uff11\uff12", "0x10", "null")
_VALUES: tuple[Any, ...] = (None, [], {}, "", "x", 0, -1, 1e30, 10**400, True, [[]], [None], "\ud800", "\0", "a" * 300)
_TEXTS = ("", "yes", "../../x", "C:\\x\\0.jpg", "/0.jpg", "a" * 5000, "\0", "\u2028", "{", "<", "&x;", "- ")
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "cp1252", "gbk", "utf-32")


def damage(root: Path, rng: random.Random) -> str:
    """Change one random file of a set, and return what was done."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = (
        rng.choice([p for p in files if not is_image_name(p.name)] or files)
        if rng.random() < 0.7
        else rng.choice(files)
    )
    kinds = [_flip, _cut, _rename, _remove, _repeat]
    if not is_image_name(path.name):
        kinds += [_number, _number, _encode, _text] + [_node] * 4 * path.name.endswith(("json", "jsonl"))
    kind = rng.choice(kinds)
    kind(path, rng)
    return f"{kind.__name__.strip('_')} {path.relative_to(root)}"


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    path.write_bytes(data[:start] + (data[stop:] if rng.random() < 0.5 else b""))


def _rename(path: Path, rng: random.Random) -> None:
    stem, suffix = path.stem, path.suffix
    names = [path.name.upper(), unicodedata.normalize("NFD", path.name), stem, f"{stem}.png", f"._{path.name}"]
    names += [f"{stem}%20x{suffix}", "🐈" * 50 + suffix]
    path.rename(path.with_name(rng.choice(names)))


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _repeat(path: Path, rng: random.Random) -> None:
    names = [name for name in (f"copy-{path.name}", f"{path.stem}.webp", f"{path.stem}.txt") if name != path.name]
    shutil.copy(path, path.with_name(rng.choice(names)))


def _number(path: Path, rng: random.Random) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    places = [n for n, character in enumerate(text) if character.isdigit()]
    if places:
        place = rng.choice(places)
        text = text[:place] + rng.choice(_NUMBERS) + text[place + 1 :]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def _encode(path: Path, rng: random.Random) -> None:
    text = path.read_bytes().decode("utf-8", "replace").replace("Cat", "Kätzchen")
    path.write_bytes(text.encode(rng.choice(_ENCODINGS), "replace"))


def _text(path: Path, rng: random.Random) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    words = text.split()
    new = rng.choice(
        ("", "yes", "../../x", "C:\\x\\0.jpg", "/0.jpg", "a" * 5000, "\0", "\u2028", "{", "<", "&x;", "- ")
    )
    path.write_bytes((text.replace(rng.choice(words), new, 1) if words else new).encode("utf-8", "replace"))


def _node(path: Path, rng: random.Random) -> None:
    """Replace, remove or repeat a random node of a JSON file, or of a line of it."""
    lines = path.read_text(errors="replace").splitlines() or [""]
    place = rng.randrange(len(lines))
    try:
        content = json.loads(lines[place] if path.suffix == ".jsonl" else "\n".join(lines))
    except ValueError:
        return
    nodes = [(None, None), *_nodes(content)]
    holder, key = rng.choice(nodes)
    if holder is None:
        content = rng.choice(_VALUES)
    elif rng.random() < 0.2:
        del holder[key]
    elif isinstance(holder, list) and rng.random() < 0.3:
        holder.append(holder[key])
    else:
        holder[key] = rng.choice(_VALUES)
    text = json.dumps(content)
    path.write_text("\n".join([*lines[:place], text, *lines[place + 1 :]]) if path.suffix == ".jsonl" else text)


def _nodes(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    for key in keys:
        found += [(content, key), *_nodes(content[key])]
    return found


def check(source: str, root: Path, out: Path) -> str:
    """Import a set; return "imported" or the message of its UserError. Raises AssertionError when an image is lost."""
    acquire = load_settings(Path(__file__).parents[1] / PARAMS).acquire
    settings = acquire.replace(source=source, root=str(root), max_lost_frac=1.0)
    counts = ImportCounts()
    try:
        found = list(READERS[source](settings, counts))
        kept = select_images(iter(found), settings, counts)
        import_dataset(settings, 0, out)
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line: {error!r}") from error
        return one_line(error)
    _check_counts(source, root, len(found), len(kept), counts)
    return "imported"


def _check_counts(source: str, root: Path, num_read: int, num_kept: int, counts: ImportCounts) -> None:
    num_counted = sum(counts.skipped[reason] for reason in IMAGE_COUNTS)
    num_named = FORMATS[source].count(root)
    num_left_out = num_counted + sum(counts.skipped[reason] for reason in READER_COUNTS)
    assert num_named == num_kept + num_left_out, f"{num_named} images named, {num_kept} kept, {counts.skipped}"
    assert num_read <= num_kept + num_counted, f"{num_read} images read, {num_kept} kept, {counts.skipped}"
