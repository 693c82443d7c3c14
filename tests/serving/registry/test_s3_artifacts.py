"""A registry whose files are in an S3-compatible store: register, load, edit, compare, and failures in one line."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
from moto.server import ThreadedMotoServer

from pbe.errors import UserError
from pbe.method.painter import Painter
from pbe.serving.commands.main import main
from pbe.serving.registry.management import compare_versions, promote, show_version
from pbe.serving.registry.registered_models import MissingFilesError, painter_folder
from pbe.serving.registry.versions import Registered, register
from tests.support import parameters
from tests.support.planted_evaluations import planted

NAME = "paint-by-example"
CHAMPION = f"models:/{NAME}@champion"
BUCKET = "models"


class Project:
    """A project whose registry is an SQLite database, and whose artifacts are in a bucket."""

    def __init__(self, folder: Path, s3: Any) -> None:
        self.folder, self.s3 = folder, s3
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.cache = folder / "cache"

    def put(self, model: Path, identity: float, **more: Any) -> Registered:
        copy = self.folder / "models" / str(identity)
        if not copy.exists():
            shutil.copytree(model, copy)
            (copy / "README.md").write_text(f"identity {identity}")
        settings = parameters.register(bootstrap_draws=200)
        evaluation = planted(int(identity), identity=identity)
        location = f"s3://{BUCKET}/mlruns"
        return register(copy, evaluation, settings, seed=0, tracking_uri=self.uri, artifact_location=location, **more)

    def stored(self) -> list[str]:
        return [each["Key"] for each in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="module")
def project(
    endpoint: str, empty_registry: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Return a project with two versions, of which the second is champion."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"):
            environment.setenv(name, endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_CONFIG_FILE", os.devnull)
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        s3: Any = boto3.client("s3", endpoint_url=endpoint)
        s3.create_bucket(Bucket=BUCKET)
        folder = tmp_path_factory.mktemp("project")
        shutil.copy(empty_registry, folder / "mlflow.db")
        made = Project(folder, s3)
        (folder / "gallery.png").write_bytes(b"a picture")
        assert made.put(model_folder, 60, report_files=[folder / "gallery.png"]).outcome == "first"
        assert made.put(model_folder, 62).outcome == "better"
        yield made
    mlflow.set_tracking_uri("")


def test_models_in_s3_are_registered_compared_and_painted_with(
    project: Project, model_folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(project.folder.rglob("MLmodel"))
    assert sum(key.endswith("/version.json") for key in project.stored()) == 2
    shown = show_version(NAME, 1, tracking_uri=project.uri)
    assert shown.files_exist
    assert shown.location.startswith(f"s3://{BUCKET}/mlruns/")
    assert any(key.endswith(shown.record.picture) for key in project.stored())
    assert shown.record.metrics == planted(60).metrics
    rows = compare_versions(NAME, "champion", 1, tracking_uri=project.uri).differences
    assert {row.metric: row.verdict for row in rows}["identity"] == "better"

    folder = painter_folder(CHAMPION, tracking_uri=project.uri, cache=project.cache)
    assert folder.is_relative_to(project.cache)
    assert Painter.from_pretrained(folder).image_px == 32
    with monkeypatch.context() as patch:  # once in the cache, a version is not downloaded again
        patch.setattr(mlflow.artifacts, "download_artifacts", None)
        assert painter_folder(CHAMPION, tracking_uri=project.uri, cache=project.cache) == folder

    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.folder / "home"))
    files = {"source": "s.png", "mask": "m.png", "exemplar": "e.jpg", "out": "o.png"}
    argv = ["edit", "--num-steps=2", *(f"--{name}={images / file}" for name, file in files.items())]
    assert main(argv) == 0
    from_s3 = (images / "o.png").read_bytes()
    assert main([*argv, f"--model={project.folder / 'models' / '62'}"]) == 0
    assert (images / "o.png").read_bytes() == from_s3

    assert project.put(model_folder, 62).version == 2  # the same weights again


def test_a_store_that_does_not_answer_is_named_in_one_line(
    project: Project, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")  # MLflow keeps its connections by key
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    for ask in (
        lambda: painter_folder(CHAMPION, tracking_uri=project.uri, cache=tmp_path),
        lambda: show_version(NAME, 1, tracking_uri=project.uri),
        lambda: project.put(model_folder, 62),
    ):
        with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
            ask()


def test_files_that_are_gone_are_named(project: Project, tmp_path: Path) -> None:
    gone = [{"Key": key} for key in project.stored()]
    project.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": gone})

    assert not show_version(NAME, 1, tracking_uri=project.uri).files_exist
    with pytest.raises(MissingFilesError, match="the files of version 1 are gone"):
        promote(NAME, 1, "x", tracking_uri=project.uri)
    with pytest.raises(MissingFilesError, match=f"^{CHAMPION}: its files are gone from s3://{BUCKET}/"):
        painter_folder(CHAMPION, tracking_uri=project.uri, cache=tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
