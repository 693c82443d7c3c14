"""Verdicts of reviewers: tags set in FiftyOne's App, stored in a file that outranks the rules of curation.

A reviewer adds the tag `reject` or `keep` to images or boxes. `pull` compares the tags with the decisions of curation
and writes the differences to the file. The file is in git, so that verdicts are reviewed, reverted and dated like code.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pbe.dataset.table_files import file_errors
from pbe.errors import UserError
from pbe.runtime.files import atomic_file

KEEP, REJECT = "keep", "reject"
BY_REVIEWER = "person"  # as stored: the reason of an image that a reviewer rejected
COLUMNS = ("kind", "split", "id", "verdict")
KINDS = ("image", "box")

Verdicts = Mapping[tuple[str, str, str], str]  # (kind, split, id) -> KEEP or REJECT


class TaggedVerdict(NamedTuple):
    """One line of the file; `id` is an image_id or a box_id, according to `kind`."""

    kind: str
    split: str
    id: str
    verdict: str


def read_verdicts(path: Path) -> dict[tuple[str, str, str], str]:
    """Return (kind, split, id) -> keep or reject; {} when there is no file.

    Raises UserError naming the file, and the line that is not a verdict.
    """
    if not path.is_file():
        return {}
    with file_errors(path):
        lines = pl.read_csv(path, infer_schema=False)
    if tuple(lines.columns) != COLUMNS:
        raise UserError(f"{path}: its columns are {', '.join(lines.columns)}; they must be {', '.join(COLUMNS)}")
    verdicts: dict[tuple[str, str, str], str] = {}
    for number, row in enumerate(lines.iter_rows(), 2):
        kind, split, key, verdict = row
        if kind not in KINDS or verdict not in (KEEP, REJECT) or not split or not key:
            text = ",".join(str(value or "") for value in row)
            raise UserError(
                f"{path}: line {number}: {text} is not a verdict: kind is image or box, verdict is keep or reject"
            )
        verdicts[kind, split, key] = verdict
    return verdicts


def write_verdicts(path: Path, verdicts: Verdicts) -> None:
    """Write the file sorted and atomically: the same verdicts give the same bytes."""
    rows = [(*key, verdict) for key, verdict in sorted(verdicts.items())]
    lines = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
    with atomic_file(path) as part:
        lines.write_csv(part)


def pull(fo: Any, dataset: str, path: Path) -> list[TaggedVerdict]:
    """Write the verdicts tagged in the FiftyOne dataset to the file `path`, replacing older ones; return the new ones.

    Raises UserError when there is no such dataset, and naming a box that is tagged both keep and reject.
    """
    if not fo.dataset_exists(dataset):
        raise UserError(f"no FiftyOne dataset named {dataset}; run: dvc repro curate")
    known = read_verdicts(path)
    tagged = list(_tagged_verdicts(fo.load_dataset(dataset)))
    new = [v for v in tagged if known.get(v[:3]) != v.verdict]
    if new:
        write_verdicts(path, known | {v[:3]: v.verdict for v in tagged})
    return new


def unsaved_verdicts(fo: Any, dataset: str, known: Verdicts) -> list[TaggedVerdict]:
    """Return the verdicts tagged in the FiftyOne dataset that `known` does not have; [] without a dataset."""
    if not fo.dataset_exists(dataset):
        return []
    return [v for v in _tagged_verdicts(fo.load_dataset(dataset)) if known.get(v[:3]) != v.verdict]


def tag_verdicts(fo: Any, dataset: str, verdicts: Sequence[TaggedVerdict]) -> None:
    """Tag images and boxes of the FiftyOne dataset as a reviewer does in the App."""
    ids: dict[tuple[str, str, str], list[str]] = {}
    for kind, split, key, verdict in verdicts:
        ids.setdefault((kind, split, verdict), []).append(key)
    for (kind, split, verdict), keys in ids.items():
        of_split = fo.load_dataset(dataset).match(fo.ViewField("split") == split)
        if kind == "image":
            of_split.match(fo.ViewField("image_id").is_in(keys)).tag_samples(verdict)
        else:
            boxes = of_split.filter_labels("ground_truth", fo.ViewField("box_id").is_in(keys))
            boxes.tag_labels(verdict, label_fields="ground_truth")


def _tagged_verdicts(dataset: Any) -> Iterator[TaggedVerdict]:
    fields = ("image_id", "split", "verdict", "tags", "ground_truth.detections.box_id", "ground_truth.detections.tags")
    for image_id, split, decided, tags, box_ids, box_tags in zip(*dataset.values(list(fields)), strict=True):
        other = REJECT if decided == KEEP else KEEP
        if other in tags:  # curation sets one of the two tags: a reviewer has added the other one, or replaced it
            yield TaggedVerdict("image", split, image_id, other)
        for box_id, found in zip(box_ids or (), box_tags or (), strict=True):
            chosen = {KEEP, REJECT} & set(found or ())
            if len(chosen) > 1:
                raise UserError(f"box {box_id} ({split}) is tagged both keep and reject; remove one of the tags")
            if chosen:
                yield TaggedVerdict("box", split, box_id, chosen.pop())
