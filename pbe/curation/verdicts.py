"""People's verdicts, made in FiftyOne's App and kept in a file that curation obeys.

A person adds the tag `reject` or `keep` to images or to boxes; `pull` compares the tags with what curation had decided
and writes the differences down. The file is in git: a verdict is reviewed, reverted and dated like any other change.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pbe.errors import UserError
from pbe.runtime.files import atomic_file

KEEP, REJECT = "keep", "reject"
BY_PERSON = "person"  # the reason of an image that a person rejected, and the tag of one that a person judged
COLUMNS = ("kind", "split", "id", "verdict")
KINDS = ("image", "box")


class TaggedVerdict(NamedTuple):
    """One line of the file; `id` is an image_id or a box_id, as `kind` says."""

    kind: str
    split: str
    id: str
    verdict: str


def read_verdicts(path: Path) -> dict[tuple[str, str, str], str]:
    """(kind, split, id) -> keep or reject; nothing where there is no file.

    Raises UserError naming the file and the line that makes no sense.
    """
    if not path.is_file():
        return {}
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a readable CSV file: {str(error).strip().splitlines()[0]}") from None
    if tuple(table.columns) != COLUMNS:
        raise UserError(f"{path}: its columns are {', '.join(table.columns)}; they must be {', '.join(COLUMNS)}")
    verdicts: dict[tuple[str, str, str], str] = {}
    for line, row in enumerate(table.iter_rows(), 2):
        kind, split, key, verdict = row
        if kind not in KINDS or verdict not in (KEEP, REJECT) or not split or not key:
            raise UserError(f"{path}: line {line}: {','.join(str(v or '') for v in row)} is no verdict: kind is image "
                             "or box, verdict is keep or reject")  # fmt: skip
        verdicts[kind, split, key] = verdict
    return verdicts


def write_verdicts(path: Path, verdicts: dict[tuple[str, str, str], str]) -> None:
    """Write the file sorted, whole or not at all: the same verdicts are the same bytes."""
    rows = [(*key, verdict) for key, verdict in sorted(verdicts.items())]
    table = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
    with atomic_file(path) as part:
        table.write_csv(part)


def pull(fo: Any, dataset: str, path: Path) -> list[TaggedVerdict]:
    """Write what people tagged in the FiftyOne dataset into `path`, over what stood there; returns what is new.

    Raises UserError when there is no such dataset, or naming a box that is tagged both ways.
    """
    if not fo.dataset_exists(dataset):
        raise UserError(f"no FiftyOne dataset named {dataset}; run: dvc repro curate")
    known = read_verdicts(path)
    told = list(_tagged(fo.load_dataset(dataset)))
    fresh = [v for v in told if known.get(v[:3]) != v.verdict]
    if fresh:
        write_verdicts(path, known | {v[:3]: v.verdict for v in told})
    return fresh


def _tagged(dataset: Any) -> Iterator[TaggedVerdict]:
    fields = ("image_id", "split", "verdict", "tags", "ground_truth.detections.box_id", "ground_truth.detections.tags")
    for image_id, split, decided, tags, box_ids, box_tags in zip(*dataset.values(list(fields)), strict=True):
        said = {KEEP, REJECT} & set(tags)
        other = REJECT if decided == KEEP else KEEP
        if other in said:  # curation sets one of the two tags: a person has added the other, or replaced it
            yield TaggedVerdict("image", split, image_id, other)
        for box_id, found in zip(box_ids or (), box_tags or (), strict=True):
            chosen = {KEEP, REJECT} & set(found or ())
            if len(chosen) > 1:
                raise UserError(f"box {box_id} ({split}) is tagged both keep and reject; remove one of the tags")
            if chosen:
                yield TaggedVerdict("box", split, box_id, chosen.pop())
