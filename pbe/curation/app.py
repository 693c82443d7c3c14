"""The FiftyOne App on the curated dataset, served by this process on 127.0.0.1 until it is interrupted.

The pinned FiftyOne 1.13 was written for Starlette 0.x, and Prefect 3.8 requires Starlette 1.0.1 or later. This module
restores what Starlette has removed, for this process only:

    patch                       removed in Starlette    not needed since FiftyOne
    _restore_on_event           1.0                     1.18
    _accept_method_argument     1.0                     1.18
    _accept_path_objects        1.1                     1.20

All three can go with FiftyOne 1.20, which allows Starlette from 1.3.1 to below 1.4; tests/curation/test_app.py fails
as soon as the installed versions do not need one of them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pbe.curation.fiftyone_export import has_decisions
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from pbe.runtime.ports import LOOPBACK, require_free_port

PORT = 5151


def browse(
    home: Path,
    dataset: str,
    *,
    uri: str | None = None,
    port: int = PORT,
    on_ready: Callable[[str], None] | None = None,
    decisions: str = "",
    write: Callable[[str], None] | None = None,
) -> None:
    """Serve the App on `dataset` until SIGINT or SIGTERM; call `on_ready` with its address when it accepts connections.

    `home` is the project's `.fiftyone` folder; `uri` names another MongoDB than the one in it. `write` is called with
    the address of the MongoDB when there is no such dataset, or when the project's own is not of these `decisions`.
    Call it in the main thread. Raises UserError when the port is in use, or without a dataset and `write`.
    """
    require_free_port(port, "--port")
    if uri is None and write is None and not (home / "db").is_dir():
        raise UserError(f"{home}: no FiftyOne database; run: dvc repro curate")
    with running_mongod(home, uri) as running:
        if write is not None and not _is_written(running, home, dataset, None if uri else decisions):
            write(running)
        with connected_fiftyone(running, home) as fo:
            if not fo.dataset_exists(dataset):
                raise UserError(f"no FiftyOne dataset named {dataset}; run: dvc repro curate")
            asyncio.run(_serve(_load_app(fo), port, dataset, on_ready))


def _is_written(uri: str, home: Path, dataset: str, decisions: str | None) -> bool:
    with connected_fiftyone(uri, home) as fo:
        return bool(fo.dataset_exists(dataset)) if decisions is None else has_decisions(fo, dataset, decisions)


async def _serve(app: Any, port: int, dataset: str, on_ready: Callable[[str], None] | None) -> None:
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{LOOPBACK}:{port}"]
    config.graceful_timeout = 1.0  # an open App keeps an event stream that never ends
    config.errorlog = None
    set_port(port)
    server = asyncio.ensure_future(serve(app, config))
    announcement = asyncio.ensure_future(_announce(port, f"http://{LOOPBACK}:{port}/datasets/{dataset}", on_ready))
    await server
    announcement.cancel()


async def _announce(port: int, address: str, on_ready: Callable[[str], None] | None) -> None:
    """Call `on_ready` when the port accepts connections: Hypercorn has no callback for it."""
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        if on_ready is not None:
            on_ready(address)
        return


def _load_app(fo: Any) -> Any:
    """Import FiftyOne's server; under Starlette 1.x, patch it and run its startup and shutdown handlers."""
    from starlette.applications import Starlette

    os.environ["FIFTYONE_SERVER"] = "1"  # as `fiftyone.server.main` does before it imports the App
    fo.config.singleton_cache = False  # datasets must not be cached between requests
    if hasattr(Starlette, "on_event"):
        from fiftyone.server.app import app

        return app
    handlers = _restore_on_event(Starlette)
    import fiftyone.server.app as server

    _accept_method_argument(server)
    _accept_path_objects(server.Static)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await handlers["startup"]()
        yield
        await handlers["shutdown"]()

    server.app.router.lifespan_context = lifespan
    return server.app


def _restore_on_event(starlette_class: Any) -> dict[str, Callable[[], Any]]:
    """Give Starlette its decorator `on_event` back; return the dictionary in which it collects the handlers."""
    handlers: dict[str, Callable[[], Any]] = {}

    def on_event(_: Any, kind: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        def register(handler: Callable[[], Any]) -> Callable[[], Any]:
            handlers[kind] = handler
            return handler

        return register

    starlette_class.on_event = on_event
    return handlers


def _accept_method_argument(server: Any) -> None:
    """Let the server call `FileResponse` with `method`, which Starlette 0.34 had deprecated."""
    file_response = server.FileResponse

    def without_method(*args: Any, method: str | None = None, **kwargs: Any) -> Any:
        return file_response(*args, **kwargs)

    server.FileResponse = without_method


def _accept_path_objects(static_class: Any) -> None:
    """Let the server call `StaticFiles.lookup_path` with a Path."""
    lookup_path = static_class.lookup_path

    def from_any_path(self: Any, path: Any) -> Any:
        return lookup_path(self, str(path))

    static_class.lookup_path = from_any_path
