"""The stage curate on a world with every fault: its files, its FiftyOne dataset, verdicts and errors."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from pbe.curation.examination import in_threads
from pbe.curation.selection import PHASES, CurationReport, curate
from pbe.curation.verdicts import pull, read_verdicts
from pbe.dataset.image_shards import LOCATION, ImageRef, write_tar
from pbe.demo.faults import encode_jpeg, encode_near_copy, spoil
from pbe.demo.scenes import Scene, draw_scene
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from pbe.settings import Curate
from pbe.types import Progress
from tests.support import parameters
from tests.support.parameters import PARAMETERS

pytestmark = [  # FiftyOne's imports
    pytest.mark.filterwarnings("ignore:Passing a class to strawberry:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No uuidRepresentation is specified:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

TRAIN, VALIDATION = 40, 12
SCENES = {f"{i:04d}": draw_scene(np.random.default_rng([5, i])) for i in range(TRAIN + VALIDATION)}
SPLITS = {name: "train" if i < TRAIN else "validation" for i, name in enumerate(SCENES)}
FAULTS = {
    "0001": "undecodable",
    "0002": "dark",
    "0003": "bright",
    "0004": "blurred",
    "0006": "exact_duplicate",
    "0008": "near_duplicate",
    "0009": "leak",
    "0010": "leak",
    "0042": "near_duplicate",
}
ORIGINALS = {"0006": "0005", "0008": "0007", "0009": "0043", "0010": "0044", "0042": "0041"}


def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return unit-norm 8 x 8 thumbnails: any embedding will do that maps equal images close together."""
    rows = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel() for image in images])
    rows = rows.astype(np.float32) - 127.5
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def encode(name: str, scene: Scene) -> bytes:
    fault, original = FAULTS.get(name, ""), SCENES[ORIGINALS.get(name, name)]
    if fault in ("undecodable", "dark", "bright", "blurred"):
        return spoil(scene.image, fault.replace("undecodable", "truncated"))
    return encode_near_copy(original.image) if name in ("0008", "0010", "0042") else encode_jpeg(original.image)


def write_raw(raw: Path) -> Path:
    """Write a raw folder of 52 scenes with every fault, and its boxes.parquet; return the path of the latter."""
    manifest, boxes = [], []
    (raw / "images").mkdir()
    refs: dict[str, ImageRef] = {}
    for split in ("train", "validation"):
        images = [(name, encode(name, scene)) for name, scene in SCENES.items() if SPLITS[name] == split]
        refs |= write_tar(raw / "images" / f"{split}-00000.tar", images)
    for name in SCENES:
        manifest.append(
            {"image_id": name, "split": SPLITS[name], "outcome": "ok", "group": None, **refs[name]._asdict()}
        )
        drawn = SCENES[ORIGINALS.get(name, name)]
        boxes += [box_row(name, number, drawn) for number in range(len(drawn.objects))]
    lost = dict.fromkeys(LOCATION)
    manifest.append({"image_id": "9999", "split": "train", "outcome": "missing", **lost})
    pl.DataFrame(manifest).write_parquet(raw / "manifest.parquet")
    pl.DataFrame(boxes).write_parquet(raw / "boxes.parquet")
    return raw / "boxes.parquet"


def box_row(name: str, number: int, scene: Scene) -> dict[str, Any]:
    height, width = scene.image.shape[:2]
    place = dict(zip(("x0", "y0", "x1", "y1"), scene.objects[number].box, strict=True))
    flags = dict.fromkeys(("is_occluded", "is_truncated", "is_group_of", "is_depiction"), False)
    ids = {"box_id": f"{name}_{number:03d}", "image_id": name, "split": SPLITS[name]}
    return {**ids, "label": scene.objects[number].attributes.shape, **place, "width": width, "height": height, **flags}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_raw(folder)
    return folder


@pytest.fixture(scope="module")
def uri(world: Path) -> Iterator[str]:
    with running_mongod(world / ".fiftyone") as uri:
        yield uri


def run(
    world: Path,
    out: Path,
    uri: str,
    boxes: str = "boxes.parquet",
    settings: Curate = PARAMETERS.curate,
    **options: Any,
) -> CurationReport:
    home = world / ".fiftyone"
    examine = in_threads(embed, 1)
    return curate(world, world / boxes, out, settings, examine, database_uri=uri, home=home, dataset="test", **options)


@pytest.fixture(scope="module")
def curated(world: Path, uri: str) -> CurationReport:
    return run(world, world / "curated", uri)


def read_reasons(out: Path) -> dict[str, str]:
    return dict(pl.read_parquet(out / "images.parquet").select("image_id", "reason").iter_rows())


def test_every_planted_fault_is_found_and_nothing_else(world: Path, curated: CurationReport) -> None:
    found = read_reasons(world / "curated")
    assert {name: reason for name, reason in found.items() if reason} == FAULTS
    assert set(found) == set(SCENES)


def test_duplicates_name_their_original(world: Path, curated: CurationReport) -> None:
    table = pl.read_parquet(world / "curated/images.parquet").filter(pl.col("duplicate_of").is_not_null())
    assert dict(table.select("image_id", "duplicate_of").iter_rows()) == ORIGINALS


def test_the_report_counts_by_reason_and_split(curated: CurationReport) -> None:
    train, validation = curated.images["train"], curated.images["validation"]
    assert (train["keep"], train["leak"], train["near_duplicate"], train["dark"]) == (TRAIN - 8, 2, 1, 1)
    assert (validation["keep"], validation["near_duplicate"], validation["leak"]) == (VALIDATION - 1, 1, 0)


def test_the_kept_boxes_are_those_of_kept_images(world: Path, curated: CurationReport) -> None:
    boxes = pl.read_parquet(world / "curated/boxes.parquet")
    before = pl.read_parquet(world / "boxes.parquet")
    assert boxes.columns == [*before.columns, "group"]
    assert set(boxes["image_id"]) == set(SCENES) - set(FAULTS)
    assert boxes["box_id"].is_sorted()
    assert sum(curated.boxes.values()) == boxes.height


def test_the_dataset_shows_verdicts_boxes_and_views(world: Path, uri: str, curated: CurationReport) -> None:
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        dataset = fo.load_dataset("test")
        assert dataset.persistent
        assert len(dataset) == len(SCENES)
        assert dataset.count_sample_tags()["reject"] == len(FAULTS)
        assert dataset.count_sample_tags()["leak"] == 2
        sample = dataset.one(fo.ViewField("image_id") == "0000")
        box = SCENES["0000"].objects[0].box
        height, width = SCENES["0000"].image.shape[:2]
        expected = [box.x0 / width, box.y0 / height, box.width / width, box.height / height]
        assert sample.ground_truth.detections[0].bounding_box == pytest.approx(expected)
        assert 0 < sample.uniqueness <= 1
        assert 0 <= sample.typicality <= 1
        assert 0 <= sample.dark_frac < 1
        assert sample.verdict == "keep"
        assert len(dataset.load_saved_view("rejected: leak")) == 2
        leaks = dataset.load_saved_view("leaks")
        assert leaks.values("image_id") == ["0043", "0009", "0044", "0010"]  # each after its validation image
        assert leaks.values("leak") == ["0043", "0043", "0044", "0044"]
        repeats = dataset.load_saved_view("near-duplicates")
        assert repeats.values("image_id") == ["0005", "0006", "0007", "0008", "0041", "0042"]
        kept = set(dataset.load_saved_view("kept").values("image_id"))
        for name, field in (("most typical", "typicality"), ("most unusual", "uniqueness")):
            view = dataset.load_saved_view(name)
            assert set(view.values("image_id")) == kept
            assert view.values(field) == sorted(view.values(field), reverse=True)
        assert "class: circle" in dataset.list_saved_views()
        sidebar = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
        assert sidebar["verdict"] == ["split", "group", "verdict", "reason", "duplicate_of", "repeats", "leak"]
        assert {"id", "filepath"} < set(sidebar["others"])


def test_the_app_can_sort_by_similarity(world: Path, uri: str, curated: CurationReport) -> None:
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        dataset = fo.load_dataset("test")
        assert dataset.list_brain_runs() == ["tower"]
        original = dataset.one(fo.ViewField("image_id") == "0007").id
        alike = dataset.sort_by_similarity(original, brain_key="tower", k=2)
        assert set(alike.values("image_id")) == {"0007", "0008"}


def test_a_rerun_gives_the_same_bytes_and_replaces_the_dataset(world: Path, uri: str, curated: CurationReport) -> None:
    run(world, world / "again", uri)
    for name in ("boxes.parquet", "images.parquet", "report.html"):
        assert (world / "again" / name).read_bytes() == (world / "curated" / name).read_bytes()
    assert len(list((world / "again").iterdir())) == 3
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        assert fo.list_datasets() == ["test"]
        assert len(fo.load_dataset("test")) == len(SCENES)


def test_the_page_contains_its_images_and_no_path(world: Path, curated: CurationReport) -> None:
    page = (world / "curated/report.html").read_text()
    assert str(world) not in page
    assert "http" not in page
    assert page.count("<img") == 8 + 5  # all rejected images but the undecodable one, and five originals
    assert "<h2>leak: 2</h2>" in page


def test_reviewers_tags_outrank_the_rules_and_survive_the_next_run(world: Path, uri: str, tmp_path: Path) -> None:
    file, rejected_box = tmp_path / "verdicts.csv", "0012_000"
    run(world, tmp_path / "before", uri)
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        dataset, field = fo.load_dataset("test"), fo.ViewField
        dataset.match(field("image_id") == "0011").tag_samples("reject")
        dataset.match(field("image_id").is_in(["0002", "0001"])).tag_samples("keep")  # dark, undecodable
        dataset.filter_labels("ground_truth", field("box_id") == rejected_box).tag_labels("reject")
        new = pull(fo, "test", file)
        assert pull(fo, "test", file) == []
    assert sorted(new) == [
        ("box", "train", rejected_box, "reject"),
        ("image", "train", "0001", "keep"),
        ("image", "train", "0002", "keep"),
        ("image", "train", "0011", "reject"),
    ]
    report = run(world, tmp_path / "after", uri, verdicts=read_verdicts(file))
    found = read_reasons(tmp_path / "after")
    assert (found["0011"], found["0002"], found["0001"]) == ("person", "", "undecodable")
    assert report.images["train"]["person"] == 1
    before, after = (set(pl.read_parquet(tmp_path / n / "boxes.parquet")["box_id"]) for n in ("before", "after"))
    assert rejected_box in before
    assert {b[:4] for b in before - after} == {"0011", "0012"}
    assert {b[:4] for b in after - before} == {"0002"}
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        assert pull(fo, "test", file) == []
        boxes = fo.load_dataset("test").match_labels(tags="reject")
        assert boxes.values("image_id") == ["0012"]


def test_every_phase_reports_its_progress(world: Path, uri: str) -> None:
    reported: dict[str, tuple[int, int]] = {}

    def bars(name: str) -> Progress:
        return lambda done, total, note="": reported.update({name: (done, total)})

    run(world, world / "progress", uri, bars=bars)
    good = len(SCENES) - 4
    assert reported == dict(zip(PHASES, [(n, n) for n in (len(SCENES), good, len(SCENES))], strict=True))


def test_boxes_for_another_size_reject_the_image(world: Path, uri: str, curated: CurationReport) -> None:
    wrong = (pl.col("image_id") == "0000").cast(pl.Int64)
    pl.read_parquet(world / "boxes.parquet").with_columns(pl.col("width") + wrong).write_parquet(world / "odd.parquet")
    run(world, world / "odd", uri, "odd.parquet")
    assert read_reasons(world / "odd")["0000"] == "size_mismatch"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_raw(tmp_path)
    (tmp_path / "images/train-00000.tar").unlink()
    with pytest.raises(UserError, match=r"train-00000\.tar: no such file; run the acquire stage again"):
        run(tmp_path, tmp_path / "out", "mongodb://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_missing_or_malformed_or_disagree_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.parquet: no such file; run the acquire stage first"):
        run(tmp_path, tmp_path / "out", "")
    write_raw(tmp_path)
    boxes = pl.read_parquet(tmp_path / "boxes.parquet")
    boxes.drop("x0").write_parquet(tmp_path / "lacking.parquet")
    with pytest.raises(UserError, match=r"lacking\.parquet: column x0 is missing; run the filter stage again"):
        run(tmp_path, tmp_path / "out", "", "lacking.parquet")
    boxes.with_columns(image_id=pl.lit("9999")).write_parquet(tmp_path / "strange.parquet")
    with pytest.raises(UserError, match=r"strange\.parquet: image 9999 \(train\) is not ok in the manifest"):
        run(tmp_path, tmp_path / "out", "", "strange.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"broken\.parquet: not a readable parquet file"):
        run(tmp_path, tmp_path / "out", "", "broken.parquet")


@pytest.mark.parametrize("function", ["imdecode", "GaussianBlur"])
def test_a_bug_keeps_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("operands could not be broadcast together")

    write_raw(tmp_path)
    monkeypatch.setattr(cv2, function, broken)
    with pytest.raises(ValueError, match="could not be broadcast") as caught:
        run(tmp_path, tmp_path / "out", "mongodb://127.0.0.1:9")
    assert type(caught.value) is ValueError


def test_near_duplicates_are_looked_for_within_a_group_alone(world: Path, tmp_path: Path, uri: str) -> None:
    shutil.copytree(world / "images", tmp_path / "images")
    shutil.copy(world / "boxes.parquet", tmp_path)
    clips = {"0007": "a", "0008": "b", "0010": "a", "0044": "b", "0041": "c", "0042": "c"}
    manifest = pl.read_parquet(world / "manifest.parquet")
    manifest = manifest.with_columns(group=pl.col("image_id").replace_strict(clips, default=None))
    manifest.write_parquet(tmp_path / "manifest.parquet")
    run(tmp_path, tmp_path / "grouped", uri)
    found = {name: reason for name, reason in read_reasons(tmp_path / "grouped").items() if reason}
    assert found == {name: reason for name, reason in FAULTS.items() if name not in ("0008", "0010")}
    boxes = pl.read_parquet(tmp_path / "grouped/boxes.parquet")
    assert dict(boxes.filter(pl.col("image_id").is_in(["0007", "0008"])).select("image_id", "group").iter_rows()) == {
        "0007": "a", "0008": "b"
    }  # fmt: skip
    with connected_fiftyone(uri, world / ".fiftyone") as fo:
        assert len(fo.load_dataset("test").match(fo.ViewField("group") == "a")) == 2
    run(tmp_path, tmp_path / "all", uri, settings=parameters.curate(group_by=None))
    assert {name: reason for name, reason in read_reasons(tmp_path / "all").items() if reason} == FAULTS


def test_an_empty_split_and_a_world_without_a_good_image_are_curated(tmp_path: Path, uri: str) -> None:
    (tmp_path / "images").mkdir()
    black = encode_jpeg(np.zeros((64, 64, 3), np.uint8))
    ref = write_tar(tmp_path / "images/train-00000.tar", [("0000", black)])["0000"]
    manifest = pl.DataFrame([{"image_id": "0000", "split": "train", "outcome": "ok", "group": None, **ref._asdict()}])
    manifest.write_parquet(tmp_path / "manifest.parquet")
    pl.DataFrame([box_row("0000", 0, SCENES["0000"])]).clear().write_parquet(tmp_path / "boxes.parquet")
    report = run(tmp_path, tmp_path / "out", uri)
    assert report.images["train"]["dark"] == 1
    assert report.boxes == {"train": 0}
