"""The FiftyOne App over the curated dataset, served by this process on 127.0.0.1 until it is interrupted.

FiftyOne 1.13 was written for Starlette 0.x, Prefect 3.8 needs Starlette 1.x. The three names that went away between
the two are put back here, for this process only; nothing else has to be installed.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod

ADDRESS = "127.0.0.1"
PORT = 5151


def browse(
    home: Path,
    dataset: str,
    *,
    uri: str | None = None,
    port: int = PORT,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the App on `dataset` until SIGINT or SIGTERM; `on_ready` is told the address when it is up.

    `home` is the project's `.fiftyone` folder, `uri` a MongoDB other than its own. Must run in the main thread.
    Raises UserError when the port is taken or there is no such dataset.
    """
    _require_free(port)
    if uri is None and not (home / "db").is_dir():
        raise UserError(f"{home}: no FiftyOne database; run: dvc repro curate")
    with running_mongod(home, uri) as running, connected_fiftyone(running, home) as fo:
        if not fo.dataset_exists(dataset):
            raise UserError(f"no FiftyOne dataset named {dataset}; run: dvc repro curate")
        asyncio.run(_serve(_load_app(fo), port, dataset, on_ready))


def _require_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError:
            raise UserError(f"port {port} on {ADDRESS} is taken; choose another with --port") from None


async def _serve(app: Any, port: int, dataset: str, on_ready: Callable[[str], None] | None) -> None:
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{ADDRESS}:{port}"]
    config.graceful_timeout = 1.0  # an open App holds an event stream that never ends by itself
    config.errorlog = None
    set_port(port)
    server = asyncio.ensure_future(serve(app, config))
    announcement = asyncio.ensure_future(_announce(port, f"http://{ADDRESS}:{port}/datasets/{dataset}", on_ready))
    await server
    announcement.cancel()


async def _announce(port: int, address: str, on_ready: Callable[[str], None] | None) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(ADDRESS, port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        if on_ready is not None:
            on_ready(address)
        return


def _load_app(fo: Any) -> Any:
    """Import FiftyOne's server under Starlette 1.x and give it back its start-up and shutdown."""
    import starlette.applications

    # What `fiftyone.server.main` sets before it imports the App: a server caches no datasets between requests.
    os.environ["FIFTYONE_SERVER"] = "1"
    fo.config.singleton_cache = False
    handlers: dict[str, Callable[[], Any]] = {}
    if hasattr(starlette.applications.Starlette, "on_event"):  # a Starlette that FiftyOne knows
        from fiftyone.server.app import app

        return app
    _restore_on_event(starlette.applications.Starlette, handlers)
    import fiftyone.server.app as server

    _restore_file_responses(server)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await handlers["startup"]()
        yield
        await handlers["shutdown"]()

    server.app.router.lifespan_context = lifespan
    return server.app


def _restore_on_event(starlette_class: Any, handlers: dict[str, Callable[[], Any]]) -> None:
    def on_event(_: Any, kind: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        def register(handler: Callable[[], Any]) -> Callable[[], Any]:
            handlers[kind] = handler
            return handler

        return register

    starlette_class.on_event = on_event


def _restore_file_responses(server: Any) -> None:
    """`FileResponse` no longer takes the method; `lookup_path` no longer takes a Path."""
    file_response, lookup_path = server.FileResponse, server.Static.lookup_path

    def without_method(*args: Any, method: str | None = None, **kwargs: Any) -> Any:
        return file_response(*args, **kwargs)

    def from_any_path(self: Any, path: Any) -> Any:
        return lookup_path(self, str(path))

    server.FileResponse, server.Static.lookup_path = without_method, from_any_path
