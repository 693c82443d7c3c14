"""Paint many pictures with one model: `pbe batch`.

Each picture is painted alone, so that it has the bits that `pbe edit` would give it. A row is done when its picture is
complete and done.jsonl says so; a batch that was killed continues with the first row that is not. A row is painted
again when its fields or its files have changed. Rows that cannot be painted are listed in errors.csv, and are tried
again by the next run.

    OUT/images/NAME.png                     the pictures
    OUT/annotations/instances_train.json    COCO: the boxes of what was painted, and of other objects that the rows name
    OUT/errors.csv                          row, name and reason
    OUT/batch.json, done.jsonl              what the pictures were painted with, and which are done
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pbe.errors import UserError, one_line
from pbe.runtime.files import read_json, write_json
from pbe.runtime.locks import hold_lock
from pbe.serving.batch.exemplars import read_exemplars
from pbe.serving.batch.rows import Corners, Row, Task, box_to_mask, clipped_box, task_of
from pbe.serving.editor import (
    Edit,
    EditOptions,
    Editor,
    Region,
    SupportsPaint,
    check_mask,
    read_mask,
    read_source,
)
from pbe.serving.pictures import check_size, losses, write_picture
from pbe.types import Box, Progress, no_progress

IMAGES, COCO = "images", Path("annotations") / "instances_train.json"
CONDITIONS, DONE, ERRORS = "batch.json", "done.jsonl", "errors.csv"

Labelled = tuple[str, Box]


@dataclass(frozen=True)
class Options:
    """How every picture of a batch is painted; `seed` is that of the first row without one, later rows count on."""

    edit: EditOptions
    seed: int

    def conditions(self) -> dict[str, Any]:
        """Return the options by name, as JSON has them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self.edit) | {"seed": self.seed}))
        return values


@dataclass(frozen=True)
class Counts:
    """rows = painted + kept + failed; `kept` are those that an earlier run has painted."""

    painted: int
    kept: int
    failed: int


@dataclass(frozen=True)
class Record:
    """What done.jsonl says of a painted row; `key` is the digest of its fields, its seed and the state of its files."""

    key: str
    name: str
    num_bytes: int
    width: int
    height: int
    seed: int
    boxes: Sequence[Labelled]  # what was painted
    others: Sequence[Labelled]
    notes: Sequence[str]


def paint_rows(
    painter: SupportsPaint,
    rows: Sequence[Row],
    out: Path,
    options: Options,
    conditions: Mapping[str, Any],
    on_row: Progress = no_progress,
) -> Counts:
    """Paint the rows that are not done into the folder `out`, then write the COCO file of all that are.

    `conditions` says what else decides the pictures' bits, such as the model's digest. Raises UserError when `out` was
    painted under other conditions or holds something else, or another process paints into it.
    """
    editor = Editor(painter)
    with _claimed(out, options.conditions() | dict(conditions)):
        done = _read_done(out)
        finished: list[tuple[Row, Record]] = []
        painted = 0
        with _appended(out / DONE) as journal, (out / ERRORS).open("w", newline="") as errors:
            report = csv.writer(errors)
            report.writerow(["row", "name", "reason"])
            for place, row in enumerate(rows):
                try:
                    task = task_of(row)
                    seed = options.seed + place if task.seed is None else task.seed
                    key = _key(row, task, seed)
                    record = done.get(key)
                    if record is None:
                        record = _paint(editor, row, task, out, options, key, seed)
                        journal.write(json.dumps(asdict(record)) + "\n")
                        journal.flush()
                        painted += 1
                    finished.append((row, record))
                except UserError as error:
                    report.writerow([row.number, row.name, one_line(error)])
                    errors.flush()
                on_row(place + 1, len(rows))
        write_json(out / COCO, coco_of(finished))
    return Counts(painted, len(finished) - painted, len(rows) - len(finished))


def coco_of(finished: Sequence[tuple[Row, Record]]) -> dict[str, Any]:
    """Return COCO's instances of the painted pictures; an image's id is its row's number.

    An annotation has `painted`: whether the model painted the object, or the source shows it.
    """
    labels = sorted({label for _, record in finished for label, _ in (*record.boxes, *record.others)})
    numbers = {label: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, record in finished:
        images.append(_coco_image(row, record))
        marked = [*((True, each) for each in record.boxes), *((False, each) for each in record.others)]
        for is_painted, (label, (x0, y0, x1, y1)) in marked:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row.number,
                    "category_id": numbers[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "painted": is_painted,
                }
            )
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _coco_image(row: Row, record: Record) -> dict[str, Any]:
    return {
        "id": row.number,
        "file_name": f"{IMAGES}/{record.name}.png",
        "width": record.width,
        "height": record.height,
        "source": row.fields["source"],
        "exemplar": row.fields["exemplar"],
        "seed": record.seed,
        "notes": list(record.notes),
    }


def _paint(editor: Editor, row: Row, task: Task, out: Path, options: Options, key: str, seed: int) -> Record:
    """Paint one row and write its picture; raises UserError when a file or an option of the row is wrong."""
    source = read_source(task.source)
    height, width = source.shown.shape[:2]
    mask = box_to_mask(task.box, height, width) if task.box else read_mask(task.mask or Path())
    check_mask(mask, source.shown, mask_name=f"mask {task.mask}", source_name=f"source {task.source}")
    exemplars = read_exemplars(task)
    path = out / IMAGES / f"{row.name}.png"
    check_size(source, "PNG", str(path))
    prepared = editor.prepare(Edit(source, (Region(mask, exemplars),), seed, options.edit))
    edited = editor.finish(prepared, editor.paint_all(prepared))
    write_picture(edited.picture, path)
    notes = [*losses(source, "PNG", mask), *edited.notes]
    boxes = [(task.label, box) for _, box in prepared.boxes]  # each region of the mask shows an object
    others = _clipped(task.others, height, width)
    return Record(key, row.name, path.stat().st_size, width, height, seed, boxes, others, notes)


def _clipped(others: Sequence[tuple[str, Corners]], height: int, width: int) -> list[Labelled]:
    boxes = ((label, clipped_box(corners, height, width)) for label, corners in others)
    return [(label, (x0, y0, x1, y1)) for label, (x0, y0, x1, y1) in boxes if x0 < x1 and y0 < y1]


def _key(row: Row, task: Task, seed: int) -> str:
    """Return a digest of what decides a row's picture: its fields, and size and time of change of its files.

    Raises UserError when a file is missing.
    """
    states = []
    for path in task.files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        state = path.stat()
        states.append([state.st_size, state.st_mtime_ns])
    content = json.dumps([row.name, seed, dict(row.fields), states], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def _claimed(out: Path, conditions: Mapping[str, Any]) -> Iterator[None]:
    """Hold a batch's folder for this process, and record the conditions there; raises UserError when they differ."""
    path = out / CONDITIONS
    if out.is_dir() and any(out.iterdir()) and not path.is_file():
        raise UserError(f"--out {out}: is not empty and holds no batch; name a new folder")
    if path.is_file():
        found = read_json(path)
        for name, value in conditions.items():
            if found.get(name) != value:
                raise UserError(
                    f"--out {out}: was painted with {name} {found.get(name)}, not {value}; name a new folder"
                )
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    with hold_lock(out / "batch.lock", timeout_s=0):
        write_json(path, conditions)
        yield


def _read_done(out: Path) -> dict[str, Record]:
    """Return the rows that are done, by key: those whose picture has the size that was recorded."""
    path = out / DONE
    done: dict[str, Record] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote this line; the row is painted again
        record = Record(**fields)
        done.pop(record.key, None)  # the last line of a name counts
        done[record.key] = record
    latest = {record.name: record.key for record in done.values()}
    return {key: record for key, record in done.items() if latest[record.name] == key and _is_complete(out, record)}


def _is_complete(out: Path, record: Record) -> bool:
    path = out / IMAGES / f"{record.name}.png"
    return path.is_file() and path.stat().st_size == record.num_bytes


@contextmanager
def _appended(path: Path) -> Iterator[TextIO]:
    """Open a journal for appending, on a new line even if the last one was cut off."""
    is_cut = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        if is_cut:
            file.write("\n")
        yield file
