"""The page on the service's application: one dispatcher, the same limits, and a login where it has tokens."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from pbe.serving.page.components import read_static
from pbe.serving.page.page import Page, build_page
from pbe.serving.page.routes import create_router
from pbe.serving.page.visitors import Visitors
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.service_state import ServiceState

DRAIN_POLL_S = 0.5
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
_LOGIN = "The user name is the name of your token, and the password is the token."


def mount_page(application: FastAPI) -> FastAPI:
    """Mount the page at / of the service's application, below its own routes, and return the application.

    Uploads go to a private folder that is deleted with the application. `run_service` takes this as `extend`.
    """
    state: ServiceState = application.state.service
    uploads = tempfile.TemporaryDirectory(prefix="pbe-page-")
    visitors = Visitors(state.tokens)
    page = Page(state.dispatcher, state.settings, visitors, uploads=Path(uploads.name))
    application.state.page, application.state.page_uploads = page, uploads
    application.include_router(create_router(page.store))
    gr.mount_gradio_app(
        application,
        build_page(page),
        path="/",
        auth=visitors.log_in if state.tokens.required else None,
        auth_message=_LOGIN,
        blocked_paths=[uploads.name],
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        max_file_size=page.max_file_bytes,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=_theme(),
        css=read_static("page.css"),
        head=read_static("document_head.html"),
    )
    mount = application.routes[-1]
    assert isinstance(mount, Mount)
    gradio_app = mount.app
    assert isinstance(gradio_app, gr.routes.App)
    gradio_app.uploaded_file_dir = uploads.name  # Gradio's own folder is shared by all its users on a machine
    mount.app = _EventStreams(gradio_app)
    _add_lifespan(application, state.dispatcher, gradio_app, uploads)
    return application


class _EventStreams:
    """Exempts Gradio's answers from the time in which a client has to read one: its streams last as long as a tab."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["is_event_stream"] = True
        await self._app(scope, receive, send)


def _add_lifespan(
    application: FastAPI,
    dispatcher: Dispatcher,
    gradio_app: gr.routes.App,
    uploads: tempfile.TemporaryDirectory[str],
) -> None:
    """End the streams to open tabs once the accepted edits are done: the server waits for every connection.

    The uploads are deleted at the end.
    """

    async def watch() -> None:
        while not dispatcher.state.draining or dispatcher.state.queued + dispatcher.state.running:
            await asyncio.sleep(DRAIN_POLL_S)
        gradio_app.stop_event.set()

    inner = application.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[object]:
        async with inner(app) as state:
            watching = asyncio.create_task(watch())
            try:
                yield state
            finally:
                watching.cancel()
                uploads.cleanup()

    application.router.lifespan_context = lifespan  # type: ignore[assignment]


def _theme() -> gr.themes.Base:
    """Return the page's theme, with the system's fonts."""
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", font=_FONTS, font_mono=_MONO_FONTS
    )  # fmt: skip
