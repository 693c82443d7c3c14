"""The FiftyOne dataset of curation, in which reviewers browse, filter and sort images in the App.

Samples are inserted as MongoDB documents: FiftyOne's `add_samples` takes several times as long (docs/curation.md). The
similarity index is that of FiftyOne Brain, over the embeddings of the backbone's image tower.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from pbe.curation.quality import MEASURES
from pbe.curation.verdicts import BY_REVIEWER, KEEP, REJECT
from pbe.dataset.object_masks import unpack_mask

Floats = NDArray[np.float32]

REASONS = (
    "undecodable",
    "size_mismatch",
    "dark",
    "bright",
    "blurred",
    "leak",
    "exact_duplicate",
    "near_duplicate",
    BY_REVIEWER,
)
SIMILARITY_KEY = "tower"
_DECISIONS = "decisions"  # in the dataset's info
_BOX_FIELDS = ("box_id", "is_occluded", "is_truncated", "is_group_of", "is_depiction")
BOX_COLUMNS = ("label", "x0", "y0", "x1", "y1", "width", "height", *_BOX_FIELDS)
_SIMILARITY = ("uniqueness", "typicality")
_INDEXED_FIELDS = ("reason", "leak", "repeats", *_SIMILARITY)
_MAX_INDEXED = 200_000
_NUM_EXTREMES = 200
_NUM_CLASS_VIEWS = 40


class DecisionFields(NamedTuple):
    """The decision on an image, as fields of its sample; the reason "" means that it is kept.

    `repeats` is the id of the kept image of a set of duplicates within a split, and `leak` that of the validation image
    that train images duplicate; the original has them too, so that the App can sort each set together.
    """

    reason: str = ""
    duplicate_of: str | None = None
    repeats: str | None = None
    leak: str | None = None

    @property
    def verdict(self) -> str:
        """Return KEEP or REJECT."""
        return REJECT if self.reason else KEEP


class ImageRecord(NamedTuple):
    """One image of the dataset; `boxes` are rows of boxes.parquet; its size in pixels is None if it cannot be decoded.

    `measures` are those of MEASURES; `similarity` is (uniqueness, typicality), None when the image has a fault.
    """

    path: Path
    image_id: str
    split: str
    width: int | None
    height: int | None
    measures: Sequence[float | None]
    boxes: Sequence[Mapping[str, Any]]
    decision: DecisionFields = DecisionFields()
    similarity: tuple[float | None, float | None] = (None, None)
    group: str | None = None


def has_decisions(fo: Any, name: str, decisions: str) -> bool:
    """Return whether the dataset exists, is of these decisions as far as it says, and its thumbnails are there."""
    if not fo.dataset_exists(name):
        return False
    dataset = fo.load_dataset(name)
    first = dataset.first() if len(dataset) else None
    return dataset.info.get(_DECISIONS) in (None, "", decisions) and (
        first is None or Path(first.filepath).parents[2].is_dir()
    )


class DatasetWriter:
    """Writes a FiftyOne dataset, which replaces any other one of its name."""

    def __init__(self, fo: Any, name: str) -> None:
        self._fo = fo
        self._dataset = fo.Dataset(name, persistent=True, overwrite=True)
        self._places = np.random.default_rng(0)  # for `_rand`, which FiftyOne shuffles by
        self._ids: list[ObjectId] = []
        self._reasons: set[str] = set()
        self._declare_fields()

    def add(self, records: Sequence[ImageRecord], rejected_boxes: Set[tuple[str, str]] = frozenset()) -> None:
        """Add some thousands of images with their boxes; decisions become fields and tags.

        `rejected_boxes` are the (split, box_id) that reviewers rejected; they keep their tag.
        """
        common = {
            "_dataset_id": self._dataset._doc.id,
            "_media_type": "image",
            "created_at": self._dataset.created_at,
            "last_modified_at": self._dataset.created_at,
        }
        documents = [
            {"_id": ObjectId(), "_rand": float(place), **common, **_document(record, rejected_boxes)}
            for place, record in zip(self._places.random(len(records)), records, strict=True)
        ]
        if documents:
            self._collection.insert_many(documents, ordered=False)
        self._ids += [document["_id"] for document in documents]
        self._reasons |= {record.decision.reason for record in records}

    def finish(self, rows: Sequence[int], embeddings: Floats, decisions: str = "") -> None:
        """Index the records at `rows` by their (N, D) embeddings, and save the views that reviewers start from.

        The App sorts by similarity with the index. It holds the index in memory, so there is none over 200,000 images.
        `decisions` is a digest of the decisions, which the dataset keeps (`has_decisions`).
        """
        if 2 <= len(rows) <= _MAX_INDEXED:
            self._index([str(self._ids[row]) for row in rows], embeddings)
        self._dataset.reload()
        for name in _INDEXED_FIELDS:
            self._dataset.create_index(name)
        self._dataset.info[_DECISIONS] = decisions
        self._arrange_app()
        self._save_views()

    def _index(self, ids: Sequence[str], embeddings: Floats) -> None:
        import fiftyone.brain as fob

        similar = fob.compute_similarity(self._dataset, embeddings=False, brain_key=SIMILARITY_KEY, backend="sklearn")
        similar.add_to_index(np.array(embeddings), np.array(ids), reload=False)
        similar.save()

    @property
    def num_records(self) -> int:
        """Return how many images were added."""
        return len(self._ids)

    @property
    def _collection(self) -> Any:
        return self._fo.core.odm.get_db_conn()[self._dataset._sample_collection_name]

    def _declare_fields(self) -> None:
        fo, dataset = self._fo, self._dataset
        dataset.media_type = "image"
        for name in ("image_id", "split", "group", "verdict", "reason", *DecisionFields._fields[1:]):
            dataset.add_sample_field(name, fo.StringField)
        for name in (*MEASURES, *_SIMILARITY):
            dataset.add_sample_field(name, fo.FloatField)
        dataset.add_sample_field("ground_truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for name in _BOX_FIELDS:
            kind = fo.StringField if name == "box_id" else fo.BooleanField
            dataset.add_sample_field(f"ground_truth.detections.{name}", kind)

    def _arrange_app(self) -> None:
        """Colour boxes by class; list the fields to filter by first in the sidebar, and collapse the others."""
        fo, config = self._fo, self._dataset.app_config
        groups = {
            "tags": [],
            "labels": ["ground_truth"],
            "verdict": ["split", "group", "verdict", *DecisionFields._fields],
            "measures": [*MEASURES, *_SIMILARITY],
        }
        default = fo.DatasetAppConfig.default_sidebar_groups(self._dataset)
        others = [path for group in default for path in group.paths if not any(path in g for g in groups.values())]
        config.sidebar_groups = [
            fo.SidebarGroupDocument(name=name, paths=paths, expanded=name != "others")
            for name, paths in (groups | {"others": others}).items()
        ]
        config.color_scheme = fo.ColorScheme(color_by="value")
        self._dataset.save()

    def _save_views(self) -> None:
        dataset, field = self._dataset, self._fo.ViewField
        kept = dataset.match_tags(KEEP)
        dataset.save_view("kept", kept)
        dataset.save_view("rejected", dataset.match_tags(REJECT).sort_by("reason"))
        for reason in REASONS:
            if reason in self._reasons:
                dataset.save_view(f"rejected: {reason}", dataset.match(field("reason") == reason))
        leaks = dataset.match(field("leak") != None)  # noqa: E711  a query, not a comparison
        dataset.save_view("leaks", leaks.sort_by([("leak", 1), ("split", -1)]))  # each after its validation image
        repeats = dataset.match(field("repeats") != None)  # noqa: E711
        dataset.save_view("near-duplicates", repeats.sort_by([("repeats", 1), ("verdict", 1)]))
        dataset.save_view("most typical", kept.sort_by("typicality", reverse=True).limit(_NUM_EXTREMES))
        dataset.save_view("most unusual", kept.sort_by("uniqueness", reverse=True).limit(_NUM_EXTREMES))
        counts = dataset.count_values("ground_truth.detections.label")
        for label in sorted(counts, key=lambda name: (-counts[name], name))[:_NUM_CLASS_VIEWS]:
            dataset.save_view(f"class: {label}", dataset.filter_labels("ground_truth", field("label") == label))


def _document(record: ImageRecord, rejected_boxes: Set[tuple[str, str]]) -> dict[str, Any]:
    metadata, decision = None, record.decision
    if record.width is not None and record.height is not None:
        metadata = {"_cls": "ImageMetadata", "width": record.width, "height": record.height, "num_channels": 3}
    boxes = [_detection(box, (record.split, box["box_id"]) in rejected_boxes) for box in record.boxes]
    return {
        "filepath": str(record.path.resolve()),
        "tags": [record.split, decision.verdict, *([decision.reason] if decision.reason else [])],
        "metadata": metadata,
        "image_id": record.image_id,
        "split": record.split,
        "group": record.group,
        "verdict": decision.verdict,
        **decision._asdict(),
        **dict(zip(MEASURES, record.measures, strict=True)),
        **dict(zip(_SIMILARITY, record.similarity, strict=True)),
        "ground_truth": {"_cls": "Detections", "detections": boxes},
    }


def _detection(box: Mapping[str, Any], rejected: bool) -> dict[str, Any]:
    x0, y0 = box["x0"] / box["width"], box["y0"] / box["height"]
    size = [(box["x1"] - box["x0"]) / box["width"], (box["y1"] - box["y0"]) / box["height"]]
    fields = {name: box[name] for name in _BOX_FIELDS}
    detection = {"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "label": box["label"]}
    detection["tags"] = [REJECT] if rejected else []
    if box.get("object_mask"):
        detection["mask"] = _serialize(unpack_mask(box["object_mask"]))
    return {**detection, "bounding_box": [x0, y0, *size], **fields}


def _serialize(mask: NDArray[np.uint8]) -> bytes:
    """Return an object's mask inside its box as the bytes that FiftyOne stores in a document."""
    from fiftyone.core.utils import serialize_numpy_array

    return bytes(serialize_numpy_array(mask.astype(bool)))
