"""The service as a FastAPI application: OpenAI's image edits, with an exemplar and an exact mask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from pbe.serving.service import edits_route, other_routes
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.http_limits import HttpLimits
from pbe.serving.service.openai_errors import add_error_handlers
from pbe.serving.service.openapi import document_bodies
from pbe.serving.service.service_state import ServiceState
from pbe.serving.service.settings import ServiceSettings

PURGE_S = 30.0  # between removals of what has expired

NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

DESCRIPTION = """Paint the object of one picture into the masked part of another.

The interface is that of OpenAI's image edits: its clients work unmodified. What it adds are the exemplar, an exact
mask outside of which no pixel changes, seeds, and background jobs."""


def create_application(dispatcher: Dispatcher, settings: ServiceSettings) -> FastAPI:
    """Return the application, which paints with a dispatcher that the caller starts and drains.

    Raises UserError for a file of tokens that cannot be used. `application.state.service` is its ServiceState. The
    pages /docs and /redoc load their files from the application.
    """
    state = ServiceState(dispatcher, settings)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        purging = asyncio.create_task(_remove_expired(state))
        try:
            yield
        finally:
            purging.cancel()
            state.close()

    application = FastAPIOffline(
        title="Paint by Example",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    application.state.service = state
    application.include_router(edits_route.router)
    application.include_router(other_routes.router)
    application.add_middleware(HttpLimits, settings=settings, metrics=state.metrics)
    add_error_handlers(application, state.metrics.count_refusal)
    document_bodies(application)
    return application


async def _remove_expired(state: ServiceState) -> None:
    while True:
        await asyncio.sleep(PURGE_S)
        await asyncio.to_thread(state.stored.remove_expired)
        state.background.remove_expired()
