"""Versions listed, shown, compared, promoted, rolled back and described, read directly and through MLflow."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import run
from typing import Any

import mlflow
import pytest
from PIL import Image as PILImage

from pbe.errors import UnavailableError, UserError
from pbe.serving.registry.descriptions import GENERATED, MAX_LENGTH, MAX_TEXT_LENGTH
from pbe.serving.registry.evaluations import Evaluation
from pbe.serving.registry.listings import read_listing
from pbe.serving.registry.management import (
    compare_versions,
    describe,
    list_champions,
    list_versions,
    promote,
    rollback,
    show_version,
)
from pbe.serving.registry.registered_models import MissingFilesError, NoModelError, find_version
from pbe.serving.registry.version_records import Origin
from pbe.serving.registry.versions import Registered, register
from tests.support import parameters
from tests.support.planted_evaluations import planted

NAME = "paint-by-example"
SETTINGS = parameters.register(bootstrap_draws=200)
ORIGIN = Origin("a" * 40, {"data/raw": "1" * 32, "data/curated": "2" * 32}, "apache-2.0")


def with_intervals(evaluation: Evaluation) -> Evaluation:
    methods: Mapping[str, Any] = evaluation.metrics["methods"]
    row = {**methods["paint_by_example"], "identity": 60.0, "identity_low": 58.5, "identity_high": 61.25}
    metrics = {**evaluation.metrics, "methods": {**methods, "paint_by_example": row}, "num_steps": 8}
    return Evaluation(metrics, evaluation.conditions, evaluation.cases, evaluation.features, evaluation.reference)


def put(folder: Path, model: Path, seed: int, evaluation: Evaluation, **more: Any) -> Registered:
    """Register a model whose files follow from the seed."""
    copy = folder / "models" / str(seed)
    if not copy.exists():
        shutil.copytree(model, copy)
        (copy / "README.md").write_text(f"model {seed}")
    options = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "artifact_location": (folder / "mlruns").as_uri()}
    return register(copy, evaluation, SETTINGS, seed=0, origin=ORIGIN, **options, **more)


@pytest.fixture(scope="module")
def built(empty_registry: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with four versions: 1, 2 and 4 were promoted by the gate; 3 was refused."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(empty_registry, folder / "mlflow.db")
    gallery = folder / "gallery.png"
    PILImage.new("RGB", (32, 16), (200, 30, 30)).save(gallery)
    put(folder, model_folder, 1, with_intervals(planted(60)), report_files=[gallery])
    assert put(folder, model_folder, 2, planted(62, identity=62)).promoted
    assert not put(folder, model_folder, 3, planted(3, identity=50)).promoted
    assert put(folder, model_folder, 4, planted(64, identity=64)).promoted
    mlflow.set_tracking_uri("")
    return folder


@pytest.fixture
def uri(built: Path) -> Iterator[str]:
    """Return the registry's address; the database is restored after the test."""
    shutil.copy(built / "mlflow.db", built / "saved.db")
    yield f"sqlite:///{built / 'mlflow.db'}"
    shutil.copy(built / "saved.db", built / "mlflow.db")
    mlflow.set_tracking_uri("")


def champion(uri: str) -> int:
    found = find_version(f"models:/{NAME}@champion", tracking_uri=uri)
    assert found is not None
    return found.version


def history(uri: str) -> tuple[int, ...]:
    return list_champions(NAME, tracking_uri=uri).champions


def test_versions_are_listed_newest_first_with_what_people_read(uri: str) -> None:
    rows = list_versions(NAME, tracking_uri=uri)

    assert [(row.version, row.aliases) for row in rows] == [(4, ("challenger", "champion")), (3, ()), (2, ()), (1, ())]
    first = rows[-1]
    assert first.scores == "identity 60.00 [58.50, 61.25], CLIP score 85.00, FID 1.000"
    assert first.gate.startswith("Promoted, the first champion: ")
    assert (first.git_commit, first.data, first.licence) == ("a" * 40, f"data/curated {'2' * 32}", "apache-2.0")
    assert first.created.endswith("+00:00")
    assert rows[1].gate.startswith("Refused: worse than the champion, version 2")


def test_a_version_is_shown_with_everything_that_is_known_of_it(uri: str, built: Path) -> None:
    shown = show_version(NAME, "champion", tracking_uri=uri)
    assert shown.summary.version == 4

    shown = show_version(NAME, 1, tracking_uri=uri)
    key = planted(60).key
    assert shown.files_exist
    assert Path(shown.location).is_relative_to(built / "mlruns")
    assert mlflow.MlflowClient(uri).get_run(shown.run_id)
    assert shown.evaluations == (key,)
    assert shown.record.metrics == with_intervals(planted(60)).metrics
    assert shown.record.data == ORIGIN.data
    assert {row["against"] for row in shown.record.gate} == {"source", "copy_paste"}
    assert (Path(shown.location) / shown.record.picture).read_bytes() == (built / "gallery.png").read_bytes()


def test_mlflow_and_the_database_list_the_same(uri: str) -> None:
    describe(NAME, "first of all", 1, tracking_uri=uri)
    promote(NAME, 2, "a reason", tracking_uri=uri)
    mlflow.set_tracking_uri("")

    assert list_versions(NAME, tracking_uri=uri, direct=False) == list_versions(NAME, tracking_uri=uri)
    direct, asked = (read_listing(NAME, tracking_uri=uri, direct=each) for each in (True, False))
    assert (direct.tags, direct.aliases, direct.description) == (asked.tags, asked.aliases, asked.description)
    for one, other in zip(direct.versions, asked.versions, strict=True):
        assert (one.tags, one.model_id, one.run_id) == (other.tags, other.model_id, other.run_id)


def test_reading_needs_no_mlflow(uri: str) -> None:
    code = (
        "import sys; from pbe.serving.registry.management import list_versions, show_version\n"
        f"assert list_versions({NAME!r}, tracking_uri={uri!r})\n"
        f"assert show_version({NAME!r}, 1, tracking_uri={uri!r}).record.metrics\n"
        "assert not {'mlflow', 'polars', 'torch'} & set(sys.modules)"
    )
    run([sys.executable, "-c", code], check=True)


def test_mlflows_pages_show_metrics_scores_and_a_description(uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version(NAME, "1")

    assert len(version.tags) <= 10
    assert all(len(value) < 300 for value in version.tags.values())
    metrics = client.get_logged_model(version.source.removeprefix("models:/")).metrics
    assert {metric.key: metric.value for metric in metrics}["paint_by_example.identity_low"] == 58.5
    description = version.description
    assert "| metric | this model | copy-and-paste | untouched source |" in description
    assert "| identity ↑ | 60.00 [58.50, 61.25] | - | - |" in description
    assert "| FID ↓ | 1.000 | 2.000 | 0.000 |" in description
    assert f"**Gate**: {version.tags['gate']}" in description
    assert f"- data/curated: `{'2' * 32}`" in description
    assert "- licence: `apache-2.0`" in description
    assert f"(model-versions/get-artifact?name={NAME}&version=1&path=evaluations/{planted(60).key}/gallery.png)" in (
        description
    )
    assert "changes no pixel outside the mask" in client.get_registered_model(NAME).description


def test_a_description_of_a_person_stands_above_the_generated_one(uri: str) -> None:
    before = mlflow.MlflowClient(uri).get_model_version(NAME, "1").description
    whole = describe(NAME, " For **our** pictures. ", 1, tracking_uri=uri)

    assert whole == f"For **our** pictures.\n\n{before}"
    assert list_versions(NAME, tracking_uri=uri)[-1].text == "For **our** pictures."
    assert describe(NAME, "", 1, tracking_uri=uri) == before

    assert describe(NAME, "All of them.", tracking_uri=uri) == "All of them."
    assert read_listing(NAME, tracking_uri=uri).description == "All of them."
    with pytest.raises(UserError, match=f"has {MAX_TEXT_LENGTH + 1} characters; {MAX_TEXT_LENGTH} are kept"):
        describe(NAME, "x" * (MAX_TEXT_LENGTH + 1), 1, tracking_uri=uri)


def test_a_person_keeps_the_text_when_the_model_is_registered_again(uri: str, built: Path, model_folder: Path) -> None:
    describe(NAME, "Mine.", 4, tracking_uri=uri)
    describe(NAME, "Ours.", tracking_uri=uri)

    longer = planted(64, identity=64, conditions={"num_steps": 50})
    assert put(built, model_folder, 4, longer).outcome == "champion"
    listing = read_listing(NAME, tracking_uri=uri)
    assert listing.version(4).description.startswith(f"Mine.\n\n{GENERATED}")
    assert listing.description == "Ours."
    assert show_version(NAME, 4, tracking_uri=uri).evaluations == (planted().key, longer.key)
    assert show_version(NAME, 4, tracking_uri=uri).record.evaluation == longer.key


def test_a_long_description_fits_into_mlflows_database(uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    client.set_model_version_tag(NAME, "1", "gate", "x" * 4000)

    assert len(describe(NAME, "y" * MAX_TEXT_LENGTH, 1, tracking_uri=uri)) <= MAX_LENGTH


def test_versions_are_compared_on_the_same_cases(uri: str) -> None:
    comparison = compare_versions(NAME, 4, 1, tracking_uri=uri)

    assert (comparison.first.version, comparison.second.version, comparison.note) == (4, 1, "")
    rows = {row.metric: row for row in comparison.differences}
    assert list(rows) == ["fid", "clip_score", "identity", "copy_paste_score", "seam_visibility"]
    assert rows["identity"].verdict == "better"
    assert rows["identity"].low > 3 > rows["clip_score"].high
    assert {row.against for row in comparison.differences} == {"version 1"}
    back = compare_versions(NAME, 1, "champion", tracking_uri=uri).differences
    assert [row.difference for row in back] == [-row.difference for row in comparison.differences]


def test_versions_that_cannot_be_compared_say_why(uri: str, built: Path, model_folder: Path) -> None:
    put(built, model_folder, 5, planted(5, conditions={"num_steps": 50}))

    comparison = compare_versions(NAME, 5, 4, tracking_uri=uri)
    assert comparison.differences == ()
    assert comparison.note == "not comparable: version 4 was evaluated with num_steps 8, version 5 with 50"
    put(built, model_folder, 5, planted(5))
    assert compare_versions(NAME, 5, 4, tracking_uri=uri).differences
    mlflow.MlflowClient(uri).delete_model_version_tag(NAME, "4", "evaluations")
    assert compare_versions(NAME, 5, 4, tracking_uri=uri).note == (
        "not comparable: version 4 carries no scores of single cases"
    )
    with pytest.raises(UserError, match=f"{NAME}: 4 and champion are both version 4; name two versions"):
        compare_versions(NAME, 4, "champion", tracking_uri=uri)


def test_a_promotion_moves_the_alias_alone_and_keeps_the_reason(uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    gate = client.get_model_version(NAME, "3").tags["gate"]
    moved = promote(NAME, 3, "better on  our\npictures", tracking_uri=uri)

    assert (moved.version, moved.previous, moved.reason) == (3, 4, "better on our pictures")
    assert champion(uri) == 3
    version = client.get_model_version(NAME, "3")
    assert (version.tags["promotion"], version.tags["gate"]) == ("better on our pictures", gate)
    assert client.get_model_version_by_alias(NAME, "challenger").version == 4
    assert len(list_versions(NAME, tracking_uri=uri)) == 4
    assert history(uri) == (1, 2, 4, 3)


def test_a_rollback_returns_to_the_champion_before_and_a_second_one_back(uri: str) -> None:
    assert history(uri) == (1, 2, 4)
    moved = rollback(NAME, "worse at night", tracking_uri=uri)

    assert (moved.version, moved.previous) == (2, 4)
    assert (champion(uri), history(uri)) == (2, (1, 2, 4, 2))
    assert list_versions(NAME, tracking_uri=uri)[2].promotion == "Rollback from version 4: worse at night"
    assert rollback(NAME, tracking_uri=uri).version == 4
    assert rollback(NAME, tracking_uri=uri).version == 2
    assert promote(NAME, 1, "the oldest", tracking_uri=uri).previous == 2
    assert rollback(NAME, tracking_uri=uri).version == 2


def test_a_champion_that_was_made_elsewhere_is_part_of_the_history(uri: str) -> None:
    mlflow.MlflowClient(uri).set_registered_model_alias(NAME, "champion", "1")

    assert history(uri) == (1, 2, 4, 1)
    assert rollback(NAME, tracking_uri=uri).version == 4
    assert history(uri) == (1, 2, 4, 1, 4)


def test_a_registry_without_a_history_has_the_versions_that_were_champion(uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    client.delete_registered_model_tag(NAME, "champions")
    for number in ("1", "4"):
        client.set_model_version_tag(NAME, number, "was_champion", "true")

    assert history(uri) == (1, 4)
    assert rollback(NAME, tracking_uri=uri).version == 1
    assert history(uri) == (1, 4, 1)


def test_the_gate_respects_a_rollback_and_a_promotion(uri: str, built: Path, model_folder: Path) -> None:
    rollback(NAME, tracking_uri=uri)
    again = put(built, model_folder, 4, planted(64, identity=64))
    assert (again.alias, again.outcome) == ("challenger", "rolled back")
    assert "To promote it again: pbe models promote 4" in again.reason

    promote(NAME, 3, "our own test", tracking_uri=uri)
    refused = put(built, model_folder, 3, planted(3, identity=50))
    assert (refused.alias, refused.reason) == ("champion", "our own test")


@pytest.mark.parametrize(
    ("version", "reason", "message"),
    [
        (9, "x", f"{NAME} has no version 9; its versions are 1, 2, 3, 4, its aliases challenger, champion"),
        ("best", "x", f"{NAME} has no version or alias best; its versions are 1, 2, 3, 4"),
        (4, "x", f"{NAME}: version 4 is the champion already"),
        ("champion", "x", f"{NAME}: version 4 is the champion already"),
        (3, " \n", "give a reason of 1 to 500 characters"),
        (3, "x" * 501, "give a reason of 1 to 500 characters"),
    ],
)
def test_a_promotion_that_is_refused_changes_nothing(uri: str, version: int | str, reason: str, message: str) -> None:
    before = list_versions(NAME, tracking_uri=uri)
    with pytest.raises(UserError, match=f"^{message}"):
        promote(NAME, version, reason, tracking_uri=uri)
    assert list_versions(NAME, tracking_uri=uri) == before
    assert history(uri) == (1, 2, 4)


def test_a_version_whose_files_are_gone_is_not_promoted(uri: str) -> None:
    files = Path(show_version(NAME, 2, tracking_uri=uri).location)
    files.rename(files.with_name("gone"))
    try:
        for move in (lambda: promote(NAME, 2, "x", tracking_uri=uri), lambda: rollback(NAME, tracking_uri=uri)):
            with pytest.raises(MissingFilesError, match="the files of version 2 are gone; promote another version"):
                move()
        assert champion(uri) == 4
        shown = show_version(NAME, 2, tracking_uri=uri)
        assert (shown.files_exist, shown.location) == (False, str(files))
        assert compare_versions(NAME, 4, 2, tracking_uri=uri).note.startswith("not comparable: version 2 carries no")
    finally:
        files.with_name("gone").rename(files)


def test_a_rollback_to_a_deleted_version_names_what_there_is(uri: str) -> None:
    mlflow.MlflowClient(uri).delete_model_version(NAME, "2")
    with pytest.raises(NoModelError, match=f"{NAME} has no version 2; its versions are 1, 3, 4"):
        rollback(NAME, tracking_uri=uri)
    assert [row.version for row in list_versions(NAME, tracking_uri=uri)] == [4, 3, 1]


def test_a_rollback_of_the_first_champion_is_refused(uri: str) -> None:
    client = mlflow.MlflowClient(uri)
    client.set_registered_model_tag(NAME, "champions", "4")
    with pytest.raises(UserError, match=f"{NAME} has had no champion before version 4; to choose a version: pbe"):
        rollback(NAME, tracking_uri=uri)
    client.delete_registered_model_alias(NAME, "champion")
    client.set_registered_model_tag(NAME, "champions", "")
    with pytest.raises(UserError, match=f"{NAME} has had no champion; to choose a version"):
        rollback(NAME, tracking_uri=uri)
    assert promote(NAME, 1, "the first", tracking_uri=uri).previous is None


@pytest.mark.parametrize("direct", [True, False])
def test_a_model_that_the_registry_does_not_have_is_named(uri: str, direct: bool) -> None:
    with pytest.raises(NoModelError, match="the registry has no model other; run dvc repro register"):
        list_versions("other", tracking_uri=uri, direct=direct)
    with pytest.raises(UserError, match="'a/b' is no name of a registered model"):
        list_versions("a/b", tracking_uri=uri, direct=direct)


def test_a_server_that_does_not_answer_is_an_outage() -> None:
    server = "http://127.0.0.1:9"
    for ask in (
        lambda: list_versions(NAME, tracking_uri=server),
        lambda: promote(NAME, 1, "x", tracking_uri=server),
        lambda: rollback(NAME, tracking_uri=server),
    ):
        with pytest.raises(UnavailableError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
            ask()
