"""The models of a service: folders and registered models, loaded once; the registry's aliases are followed.

When an alias moves, forward or back, the new version is loaded and tried beside the old one, which is replaced then.
Edits that have begun keep their version, and its memory is free once they have ended. A version that cannot be loaded
changes nothing: the old one stays, and `problems` says why.
"""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbe.errors import UserError, one_line
from pbe.method.painter import Painter
from pbe.runtime.devices import choose_device, choose_precision
from pbe.serving.editor import Edit, EditOptions, Editor, Exemplar, Region, picture_of
from pbe.serving.registry.registered_models import RegisteredVersion, find_version, painter_folder

SCHEME = "models:/"
MAX_BATCH = 8  # windows of several users that are painted together
TRY_AGAIN_S = 60.0  # between attempts to load a version that failed

_log = logging.getLogger(__name__)


class NoSuchModelError(UserError):
    """The service has no model of this name."""


@dataclass(frozen=True)
class ModelInfo:
    """A model as a client sees it."""

    id: str  # what requests call it
    version: str | None  # of a registered model
    alias: str | None  # that is followed
    source: str  # the folder, or models:/name@alias
    created: int  # Unix time, s: of the registered version, or of the folder's index
    image_px: int  # side of the square that it paints
    exemplar_px: int


@dataclass(frozen=True)
class LoadedModel:
    """A model and the editor that uses it."""

    info: ModelInfo
    editor: Editor


@dataclass(frozen=True)
class ModelsState:
    """What the service's metrics say of its models."""

    reloads: int  # versions that replaced another
    failed_reloads: int
    num_retired: int  # replaced versions that an edit still uses
    problems: Mapping[str, str]  # by model: why its newest version is not in use


@dataclass(frozen=True)
class Registry:
    """Where registered models are: MLflow's address, and the folder that keeps what a server sends."""

    tracking_uri: str
    cache: Path | None = None
    direct: bool = True  # read a SQLite database without MLflow

    def version(self, uri: str) -> RegisteredVersion:
        """Return the version that a URI names; raises UserError when there is none."""
        found = find_version(uri, tracking_uri=self.tracking_uri, direct=self.direct)
        if found is None:
            raise UserError(f"no model {uri} in {self.tracking_uri}")
        return found

    def folder(self, version: RegisteredVersion) -> Path:
        uri = f"{SCHEME}{version.name}/{version.version}"
        return painter_folder(uri, tracking_uri=self.tracking_uri, direct=self.direct, cache=self.cache)


class Models:
    """The models that a service paints with.

    `sources` gives each model's name its folder, or a URI `models:/name@alias` or `models:/name/version`; the first one
    is the default. `device` and `precision` are what `pbe edit` takes. Aliases are read every `follow_s` seconds.
    """

    def __init__(
        self,
        sources: Mapping[str, Path | str],
        *,
        registry: Registry | None = None,
        device: str = "auto",
        precision: str = "auto",
        max_batch: int = MAX_BATCH,
        follow_s: float = 10.0,
    ) -> None:
        if not sources:
            raise UserError("the service has no model: name one")
        if registry is None and any(_is_registered(source) for source in sources.values()):
            raise UserError("a registered model needs the registry's address: set MLFLOW_TRACKING_URI")
        self._sources, self._registry = dict(sources), registry
        self._device = choose_device(device, "--device")
        self._dtype = choose_precision(precision, self._device, "--precision")
        # One thread at a time uses a GPU: PyTorch records no CUDA graph while another thread allocates memory.
        self.turn: AbstractContextManager[Any] = threading.Lock() if self._device.type == "cuda" else nullcontext()
        self._max_batch, self._follow_s = max_batch, follow_s
        self._loaded: dict[str, LoadedModel] = {}  # replaced as a whole, so that readers need no lock
        self._reloading, self._stopped = threading.Lock(), threading.Event()
        self._retired: list[weakref.ref[Editor]] = []
        self._reloads = self._failed_reloads = 0
        self._problems: dict[str, str] = {}
        self._failed: dict[str, tuple[RegisteredVersion, float]] = {}  # the version that failed, and when
        self._follower: threading.Thread | None = None

    def start(self) -> None:
        """Load every model, and begin to follow the aliases; raises UserError for a model that cannot be loaded."""
        for name in self._sources:
            self._loaded = {**self._loaded, name: self._load(name, self._version(name))}
        if self._follow_s > 0 and any(_is_registered(source) for source in self._sources.values()):
            self._follower = threading.Thread(target=self._follow, name="follow-registry", daemon=True)
            self._follower.start()

    def stop(self) -> None:
        """Stop following the aliases; the models stay loaded."""
        self._stopped.set()
        if self._follower is not None:
            self._follower.join()

    @property
    def ready(self) -> bool:
        """Whether every model is loaded."""
        return len(self._loaded) == len(self._sources)

    @property
    def state(self) -> ModelsState:
        return ModelsState(self._reloads, self._failed_reloads, len(self._in_use()), dict(self._problems))

    def list(self) -> Sequence[ModelInfo]:
        """Return the loaded models, the default one first."""
        return [loaded.info for loaded in self._loaded.values()]

    def resolve(self, name: str | None) -> LoadedModel:
        """Return the model of a name, or of a source such as `models:/name@alias`; the default one for None.

        Raises NoSuchModelError when the service does not have it.
        """
        loaded = self._loaded
        if name is None and loaded:
            return next(iter(loaded.values()))
        if name is not None and name in loaded:
            return loaded[name]
        for each in loaded.values():
            if name == each.info.source and _is_registered(name):
                return each
        raise NoSuchModelError(f"model {name!r} is not served here; served are {', '.join(loaded) or 'none yet'}")

    def reload(self) -> Sequence[ModelInfo]:
        """Read the aliases now; return the models whose version has changed."""
        with self._reloading:
            changed = [info for name in self._sources if (info := self._reload(name)) is not None]
        if self._in_use():
            gc.collect()
        return changed

    def _follow(self) -> None:
        while not self._stopped.wait(self._follow_s):
            self.reload()

    def _reload(self, name: str) -> ModelInfo | None:
        """Replace one model by the version that its alias names; return it when it has changed."""
        source = self._sources[name]
        if not _is_registered(source) or "@" not in str(source):
            return None
        with ThreadPoolExecutor(1, thread_name_prefix="load") as loader:
            asked = loader.submit(self._version, name)
            if error := asked.exception():
                self._keep(name, error, None)
                return None
            version = asked.result()
            assert version is not None
            if str(version.version) == self._loaded[name].info.version:
                self._problems.pop(name, None)
                return None
            if self._failed_lately(name, version):
                return None
            loading = loader.submit(self._load, name, version)
            if error := loading.exception():
                self._keep(name, error, version)
                return None
        return self._replace(name, loading.result())

    def _replace(self, name: str, new: LoadedModel) -> ModelInfo:
        old = self._loaded[name]
        self._loaded = {**self._loaded, name: new}
        self._retired = [*self._in_use(), weakref.ref(old.editor)]
        self._reloads += 1
        self._problems.pop(name, None)
        self._failed.pop(name, None)
        _log.info("model %s: version %s replaces %s", name, new.info.version, old.info.version)
        return new.info

    def _keep(self, name: str, error: BaseException, version: RegisteredVersion | None) -> None:
        """Keep the loaded version, and remember why a newer one is not in use."""
        kept = self._loaded[name].info.version
        what = f"version {version.version} cannot be loaded" if version else "the registry cannot be read"
        self._problems[name] = f"version {kept} stays in use: {what}: {one_line(error)}"
        if version is not None:
            self._failed[name] = version, time.monotonic()
            self._failed_reloads += 1
        expected = isinstance(error, UserError)
        _log.warning("model %s: %s", name, self._problems[name], exc_info=None if expected else error)

    def _failed_lately(self, name: str, version: RegisteredVersion) -> bool:
        failed, when = self._failed.get(name, (None, 0.0))
        return failed == version and time.monotonic() - when < TRY_AGAIN_S

    def _in_use(self) -> Sequence[weakref.ref[Editor]]:
        return [each for each in self._retired if each() is not None]

    def _version(self, name: str) -> RegisteredVersion | None:
        source = self._sources[name]
        if not _is_registered(source):
            return None
        assert self._registry is not None
        return self._registry.version(str(source))

    def _load(self, name: str, version: RegisteredVersion | None) -> LoadedModel:
        source = self._sources[name]
        if version is None:
            folder, created = Path(source), 0
        else:
            assert self._registry is not None
            folder, created = self._registry.folder(version), version.created_ms // 1000
        painter = Painter.from_pretrained(folder).place(self._device, self._dtype)
        alias = str(source).rpartition("@")[2] if version and "@" in str(source) else None
        info = ModelInfo(
            id=name,
            version=str(version.version) if version else None,
            alias=alias,
            source=str(source),
            created=created or int((folder / "model_index.json").stat().st_mtime),
            image_px=painter.image_px,
            exemplar_px=painter.exemplar_px,
        )
        editor = Editor(painter, max_batch=self._max_batch)
        with self.turn:
            _try_out(editor, painter.image_px)
        return LoadedModel(info, editor)


def _try_out(editor: Editor, image_px: int) -> None:
    """Paint one step: a model that cannot paint must not replace one that can."""
    grey = np.full((image_px, image_px, 3), 127, np.uint8)
    mask = np.zeros((image_px, image_px), np.uint8)
    mask[image_px // 4 : image_px // 2, image_px // 4 : image_px // 2] = 1
    options = EditOptions(guidance_scale=1.0, num_steps=1)
    editor.edit(Edit(picture_of(grey), (Region(mask, (Exemplar(grey),)),), 0, options))


def _is_registered(source: Path | str) -> bool:
    return str(source).startswith(SCHEME)
