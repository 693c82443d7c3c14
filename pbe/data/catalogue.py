"""The FiftyOne dataset of curation: what a person looks through, filters and sorts in the App.

Samples go in as documents, thousands a second; FiftyOne's own `add_samples` takes ten times as long. The similarity
index and the uniqueness are FiftyOne Brain's, over our image tower's embeddings.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from pbe.data.verdicts import BY_PERSON, KEEP, REJECT

Floats = NDArray[np.float32]

HOME = Path(".fiftyone")  # in a project's folder: the database and FiftyOne's own files
DATASET = "paint-by-example"
REASONS = (
    "undecodable",
    "size_mismatch",
    "dark",
    "bright",
    "blurred",
    "leak",
    "exact_duplicate",
    "near_duplicate",
    BY_PERSON,
)
SIMILARITY_KEY = "tower"
_BOX_FIELDS = ("box_id", "is_occluded", "is_truncated", "is_group_of", "is_depiction")
BOX_COLUMNS = ("label", "x0", "y0", "x1", "y1", "width", "height", *_BOX_FIELDS)
_NUM_UNUSUAL = 200
_NUM_CLASS_VIEWS = 40
_BATCH = 2000


class Record(NamedTuple):
    """One image of the catalogue; `boxes` are rows of boxes.parquet, sizes in pixels, None where undecodable."""

    path: Path
    image_id: str
    split: str
    width: int | None
    height: int | None
    brightness: float | None
    sharpness: float | None
    boxes: Sequence[Mapping[str, Any]]


class Mark(NamedTuple):
    """A record's verdict: reason "" is keep; `group` is the id of the image that a set of repeats goes by."""

    reason: str
    duplicate_of: str | None
    group: str | None

    @property
    def verdict(self) -> str:
        return REJECT if self.reason else KEEP


@contextmanager
def connected_fiftyone(uri: str, home: Path) -> Iterator[Any]:
    """Import FiftyOne (seconds), point it at the MongoDB at `uri` with its own files under `home`, and yield it.

    Disconnects on leaving: FiftyOne otherwise waits half a minute, at exit, for a database that is gone.
    """
    import fiftyone as fo

    _disconnect()
    fo.config.database_uri = uri
    fo.config.database_validation = False  # the wheel's MongoDB 6 works; FiftyOne only means to retire it
    fo.config.do_not_track = True
    fo.config.show_progress_bars = False
    for name in ("default_dataset_dir", "dataset_zoo_dir", "model_zoo_dir", "plugins_dir"):
        setattr(fo.config, name, str(home / name.removesuffix("_dir")))
    for name in ("fiftyone", "eta"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield fo
    finally:
        _disconnect()


def _disconnect() -> None:
    """Close FiftyOne's connection and drop the handles it caches; it has no public way to change databases."""
    from fiftyone.core.odm import database
    from fiftyone.factory import repo_factory

    repo_factory.RepositoryFactory.repos.clear()
    repo_factory._db = None
    database._disconnect()


class Catalogue:
    """A FiftyOne dataset under construction; whatever had its name before is replaced."""

    def __init__(self, fo: Any, name: str, records: Sequence[Record]) -> None:
        self._fo = fo
        self._records = records
        self._ids = [ObjectId() for _ in records]
        self._dataset = fo.Dataset(name, persistent=True, overwrite=True)
        self._declare_fields()
        self._insert()

    def index(self, rows: Sequence[int], embeddings: Floats, threshold: float) -> list[list[int]]:
        """Index the records at `rows` by their (N, D) embeddings and measure how unusual each is.

        Returns the groups of rows that lie within `threshold`, a cosine distance of centred embeddings, of one
        record: the candidates for near duplicates.
        """
        import fiftyone.brain as fob

        if len(rows) < 2:
            return []
        view = self._dataset.select([str(self._ids[row]) for row in rows], ordered=True)
        # Copies, in float64: the index centres the array it is handed in place.
        similar = fob.compute_similarity(
            view, embeddings=embeddings.astype(np.float64), brain_key=SIMILARITY_KEY, backend="sklearn"
        )
        fob.compute_uniqueness(view, uniqueness_field="uniqueness", similarity_index=similar)
        similar = fob.compute_near_duplicates(view, threshold=threshold, similarity_index=similar)
        row_of = {str(self._ids[row]): row for row in rows}
        return [
            [row_of[kept], *(row_of[repeat] for repeat, _ in repeats)]
            for kept, repeats in similar.neighbors_map.items()
        ]

    def mark(self, marks: Sequence[Mark], rejected_boxes: Set[tuple[str, str]] = frozenset()) -> None:
        """Write every record's verdict, as fields and as tags, and save the views a person starts from.

        `rejected_boxes` are the (split, box_id) that a person rejected; they keep their tag.
        """
        operations = [
            self._update(key, record, mark) for key, record, mark in zip(self._ids, self._records, marks, strict=True)
        ]
        for start in range(0, len(operations), _BATCH):
            self._collection.bulk_write(operations[start : start + _BATCH], ordered=False)
        for split, box_id in sorted(rejected_boxes):
            self._collection.update_many(
                {"split": split, "ground_truth.detections.box_id": box_id},
                {"$addToSet": {"ground_truth.detections.$.tags": REJECT}},
            )
        self._dataset.reload()
        self._save_views({mark.reason for mark in marks if mark.reason})

    @property
    def _collection(self) -> Any:
        return self._fo.core.odm.get_db_conn()[self._dataset._sample_collection_name]

    def _declare_fields(self) -> None:
        fo, dataset = self._fo, self._dataset
        dataset.media_type = "image"
        for name in ("image_id", "split", "verdict", "reason", "duplicate_of", "repeats"):
            dataset.add_sample_field(name, fo.StringField)
        for name in ("brightness", "sharpness", "uniqueness"):
            dataset.add_sample_field(name, fo.FloatField)
        dataset.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for name in _BOX_FIELDS:
            kind = fo.StringField if name == "box_id" else fo.BooleanField
            dataset.add_sample_field(f"ground_truth.detections.{name}", kind)

    def _insert(self) -> None:
        order = np.random.default_rng(0).random(len(self._records))  # what FiftyOne shuffles by
        common = {
            "_dataset_id": self._dataset._doc.id,
            "_media_type": "image",
            "created_at": self._dataset.created_at,
            "last_modified_at": self._dataset.created_at,
        }
        documents = [
            {"_id": key, "_rand": float(place), **common, **_document(record)}
            for key, place, record in zip(self._ids, order, self._records, strict=True)
        ]
        for start in range(0, len(documents), _BATCH):
            self._collection.insert_many(documents[start : start + _BATCH], ordered=False)

    def _update(self, key: ObjectId, record: Record, mark: Mark) -> Any:
        from pymongo import UpdateOne

        tags = [record.split, mark.verdict, *([mark.reason] if mark.reason else [])]
        fields = {
            "verdict": mark.verdict,
            "reason": mark.reason,
            "duplicate_of": mark.duplicate_of,
            "repeats": mark.group,
            "tags": tags,
        }
        return UpdateOne({"_id": key}, {"$set": fields})

    def _save_views(self, reasons: set[str]) -> None:
        dataset, field = self._dataset, self._fo.ViewField
        dataset.save_view("kept", dataset.match_tags("keep"))
        dataset.save_view("rejected", dataset.match_tags("reject").sort_by("reason"))
        for reason in REASONS:
            if reason in reasons:
                dataset.save_view(f"rejected: {reason}", dataset.match(field("reason") == reason))
        repeats = dataset.match(field("repeats") != None).sort_by("repeats")  # noqa: E711  a query, not a comparison
        dataset.save_view("repeats, side by side", repeats)
        unusual = dataset.match_tags("keep").sort_by("uniqueness", reverse=True).limit(_NUM_UNUSUAL)
        dataset.save_view("most unusual", unusual)
        counts = dataset.count_values("ground_truth.detections.label")
        for label in sorted(counts, key=lambda name: (-counts[name], name))[:_NUM_CLASS_VIEWS]:
            dataset.save_view(f"class: {label}", dataset.filter_labels("ground_truth", field("label") == label))


def _document(record: Record) -> dict[str, Any]:
    metadata = None
    if record.width is not None and record.height is not None:
        metadata = {"_cls": "ImageMetadata", "width": record.width, "height": record.height, "num_channels": 3}
    return {
        "filepath": str(record.path.resolve()),
        "tags": [record.split],
        "metadata": metadata,
        "image_id": record.image_id,
        "split": record.split,
        "brightness": record.brightness,
        "sharpness": record.sharpness,
        "ground_truth": {"_cls": "Detections", "detections": [_detection(box) for box in record.boxes]},
    }


def _detection(box: Mapping[str, Any]) -> dict[str, Any]:
    x0, y0 = box["x0"] / box["width"], box["y0"] / box["height"]
    size = [(box["x1"] - box["x0"]) / box["width"], (box["y1"] - box["y0"]) / box["height"]]
    fields = {name: box[name] for name in _BOX_FIELDS}
    detection = {"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], "label": box["label"]}
    return {**detection, "bounding_box": [x0, y0, *size], **fields}
