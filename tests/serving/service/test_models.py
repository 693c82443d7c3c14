"""The models of a service: the registry's alias is followed while edits are painted."""

import gc
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pbe.errors import UserError
from pbe.runtime.ports import free_port
from pbe.serving.service import models as models_module
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import Models, NoSuchModelError, Registry
from tests.support.service_edits import DEADLINE_S, gated, small_edit

NAME = "paint-by-example"
CHAMPION = f"models:/{NAME}@champion"


class Versions:
    """A registry whose versions are folders on this disk."""

    def __init__(self, database: Path) -> None:
        self.folder, self.uri = database.parent, f"sqlite:///{database}"
        self.client = MlflowClient(self.uri)
        self.client.create_registered_model(NAME)

    def add(self, painter: Path, *, seed: int = 0) -> int:
        folder = self.folder / f"model {len(list(self.folder.iterdir()))}"
        shutil.copytree(painter, folder / "artifacts/pbe")
        (folder / "MLmodel").write_text(
            "flavors:\n  python_function:\n    artifacts:\n      painter:\n        path: artifacts/pbe\n"
        )
        return int(self.client.create_model_version(NAME, str(folder)).version)

    def move(self, version: int, alias: str = "champion") -> None:
        self.client.set_registered_model_alias(NAME, alias, str(version))

    def painter(self, version: int) -> Path:
        return Path(self.client.get_model_version(NAME, str(version)).source) / "artifacts/pbe"


@pytest.fixture
def versions(empty_registry: Path, model_folder: Path, tmp_path: Path) -> Iterator[Versions]:
    """Two versions, of which the first one is champion."""
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    registry = Versions(tmp_path / "mlflow.db")
    registry.add(model_folder)
    registry.add(model_folder)
    registry.move(1)
    yield registry
    mlflow.set_tracking_uri("")


@pytest.fixture
def models(versions: Versions) -> Iterator[Models]:
    followed = Models({NAME: CHAMPION}, registry=Registry(versions.uri), device="cpu", follow_s=0)
    followed.start()
    yield followed
    followed.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_models_have_names_and_say_what_they_are(versions: Versions, model_folder: Path) -> None:
    sources = {"tiny": model_folder, NAME: CHAMPION, "second": f"models:/{NAME}/2"}
    models = Models(sources, registry=Registry(versions.uri), device="cpu", follow_s=0)
    assert not models.ready
    models.start()
    assert models.ready

    tiny, champion, second = models.list()
    assert (tiny.id, tiny.version, tiny.alias, tiny.source) == ("tiny", None, None, str(model_folder))
    assert (champion.id, champion.version, champion.alias) == (NAME, "1", "champion")
    assert (second.version, second.alias, second.image_px, second.exemplar_px) == ("2", None, 32, 16)
    assert abs(champion.created - time.time()) < 3600
    assert models.resolve(None).info == tiny
    assert models.resolve(NAME).info == models.resolve(CHAMPION).info == champion
    with pytest.raises(NoSuchModelError, match=f"model '{NAME}/9' is not served here; served are tiny, {NAME}, second"):
        models.resolve(f"{NAME}/9")
    with pytest.raises(NoSuchModelError):
        models.resolve(str(model_folder))  # paths of the server's disk are not names


def test_an_alias_is_followed_forward_and_back(versions: Versions, models: Models) -> None:
    assert models.reload() == []
    versions.move(2)
    assert [info.version for info in models.reload()] == ["2"]
    assert models.resolve(None).info.version == "2"
    versions.move(1)
    models.reload()
    assert models.resolve(None).info.version == "1"
    assert models.state.reloads == 2


def test_an_edit_that_has_begun_keeps_its_version_whose_memory_is_free_then(versions: Versions, models: Models) -> None:
    dispatcher = Dispatcher(models)
    dispatcher.start()
    old = weakref.ref(models.resolve(None).editor.painter)
    with gated(dispatcher) as painter:
        before = dispatcher.submit(small_edit())
        assert painter.entered.wait(DEADLINE_S)
        versions.move(2)
        models.reload()
        after = dispatcher.submit(small_edit())
        assert (before.model.version, after.model.version) == ("1", "2")
        assert models.state.num_retired == 1
        painter.gate.set()
        assert before.future.result(DEADLINE_S).digest == after.future.result(DEADLINE_S).digest
        assert painter.calls == [[0]]
    del painter
    gc.collect()
    wait_for(lambda: models.state.num_retired == 0)
    assert old() is None
    assert dispatcher.drain(DEADLINE_S)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a number"])
def test_a_version_that_cannot_be_used_changes_nothing(damage: str, versions: Versions, models: Models) -> None:
    weights = next((versions.painter(2) / "unet").glob("*.safetensors"))
    if damage == "missing":
        shutil.rmtree(versions.painter(2) / "vae")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.write_bytes(weights.read_bytes()[:-400] + b"\xff" * 400)
    versions.move(2)

    assert models.reload() == []

    assert models.ready
    assert models.resolve(None).info.version == "1"
    assert "version 1 stays in use: version 2 cannot be loaded: " in models.state.problems[NAME]
    assert models.reload() == []
    assert models.state.failed_reloads == 1  # it is tried again after a minute

    versions.move(1)
    models.reload()
    assert models.state.problems == {}


def test_a_version_that_failed_is_tried_again(
    versions: Versions, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = versions.painter(2) / "vae"
    vae.rename(vae.with_name("away"))
    versions.move(2)
    models.reload()
    vae.with_name("away").rename(vae)
    monkeypatch.setattr(models_module, "TRY_AGAIN_S", 0)
    assert [info.version for info in models.reload()] == ["2"]


def test_an_alias_or_a_registry_that_is_gone_changes_nothing(versions: Versions, models: Models) -> None:
    versions.client.delete_registered_model_alias(NAME, "champion")
    models.reload()
    assert "the registry cannot be read: no model" in models.state.problems[NAME]
    models._registry = Registry(f"http://127.0.0.1:{free_port()}")
    models.reload()
    assert "does not answer" in models.state.problems[NAME]
    assert models.resolve(None).info.version == "1"
    models._registry = Registry(versions.uri)
    versions.move(2)
    models.reload()
    assert models.resolve(None).info.version == "2"
    assert not models.state.problems


def test_the_alias_is_followed_by_itself(versions: Versions) -> None:
    models = Models({NAME: CHAMPION}, registry=Registry(versions.uri), device="cpu", follow_s=0.05)
    models.start()
    versions.move(2)
    wait_for(lambda: models.resolve(None).info.version == "2")
    models.stop()


def test_a_model_that_is_not_there_stops_the_start(versions: Versions, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model"):
        Models({"none": tmp_path}, device="cpu").start()
    with pytest.raises(UserError, match="@other"):
        Models({NAME: f"models:/{NAME}@other"}, registry=Registry(versions.uri), device="cpu").start()
    with pytest.raises(UserError, match="needs the registry's address"):
        Models({NAME: CHAMPION}, device="cpu")
