"""A page about the rejected images: counts, and examples of every reason, in one file without links."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from pbe.curation.thumbnails import Locate, encode_jpeg
from pbe.dataset.images import read_image
from pbe.errors import UserError
from pbe.runtime.files import atomic_file

Counts = Mapping[str, Mapping[str, int]]  # split -> "keep" or a reason -> images

_EXAMPLES_PER_REASON = 24
_SIDE_PX = 96
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}.sheet{display:flex;flex-wrap:wrap;gap:.8rem}
figure{margin:0;max-width:13rem}figcaption{font-size:11px;color:#555;overflow-wrap:anywhere}img{margin-right:2px}"""


def write_contact_sheet(path: Path, images: pl.DataFrame, counts: Counts, locate: Locate) -> None:
    """Write the page: the counts, then examples of every reason among `images` (rows of images.parquet).

    A duplicate is shown beside its original. Only the examples are read from `locate`, so memory stays small.
    """
    reasons = [name for name in next(iter(counts.values())) if any(row[name] for row in counts.values())]
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>Curation</title>", f"<style>{_STYLE}</style>"]
    parts += ["<h1>Curation</h1>", _counts_table(counts, reasons)]
    for reason in reasons:
        rejected = images.filter((pl.col("reason") == reason) & (pl.col("verdict") == "reject"))
        if not rejected.is_empty():
            parts.append(f"<h2>{html.escape(reason)}: {rejected.height}</h2><div class=sheet>")
            parts += [_figure(row, locate) for row in rejected.head(_EXAMPLES_PER_REASON).iter_rows(named=True)]
            parts.append("</div>")
    with atomic_file(path) as part:
        part.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _counts_table(counts: Counts, reasons: list[str]) -> str:
    head = "".join(f"<th>{html.escape(reason)}</th>" for reason in ("split", *reasons))
    rows = "".join(
        f"<tr><td>{html.escape(split)}</td>" + "".join(f"<td>{row[reason]}</td>" for reason in reasons) + "</tr>"
        for split, row in counts.items()
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _figure(row: Mapping[str, Any], locate: Locate) -> str:
    pictures = [_picture(locate(row["split"], row["image_id"]))]
    caption = f"{row['split']} {row['image_id']}"
    if row["brightness"] is not None:
        caption += f", brightness {row['brightness']:.2f}, sharpness {row['sharpness']:.1f}"
    if row["duplicate_of"] is not None:
        split = "validation" if row["reason"] == "leak" else row["split"]
        pictures.append(_picture(locate(split, row["duplicate_of"])))
        caption += f", repeats {split} {row['duplicate_of']}"
    return f"<figure>{''.join(pictures)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _picture(path: Path) -> str:
    """Return an <img> of the file with a long side of 96 px, or a note when it cannot be decoded."""
    try:
        image = read_image(path)
    except UserError:
        return "<em>cannot be decoded</em>"
    data = base64.b64encode(encode_jpeg(image, _SIDE_PX)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
