"""What the routes of one application share: dispatcher, tokens, stored pictures, and how much is being received."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, cast

from anyio import CapacityLimiter
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.edit_tasks import RESTART_S, BackgroundEdit, BackgroundEdits
from pbe.serving.service.metrics import Metrics
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.settings import ServiceSettings
from pbe.serving.service.stored_pictures import StoredPictures
from pbe.serving.service.tokens import BUSY_RETRY_S, Token, Tokens

NUM_CODERS = 2  # pictures that are decoded, and as many that are encoded, at one time

_bearer = HTTPBearer(auto_error=False, description="A token of the service, where it has any.")


class ServiceState:
    """The state of one application; its counters are used by the event loop's thread alone."""

    def __init__(self, dispatcher: Dispatcher, settings: ServiceSettings) -> None:
        self.dispatcher, self.settings = dispatcher, settings
        self.tokens = Tokens(settings.tokens_file)
        self.metrics = Metrics(dispatcher)
        self.stored = StoredPictures(settings.url_lifetime_s, settings.max_stored_bytes)
        self.background = BackgroundEdits(settings.max_jobs, self._remove_pictures)
        self.decoders, self.encoders = CapacityLimiter(NUM_CODERS), CapacityLimiter(NUM_CODERS)
        self._num_open = self._receiving_bytes = 0

    def base_url(self, request: Request) -> str:
        """Return what precedes the paths of the service, for its clients."""
        return (self.settings.public_url or str(request.base_url)).rstrip("/")

    @contextmanager
    def open_request(self) -> Iterator[None]:
        """Count a request for an edit until it is answered; raises a 429 when too many are open."""
        if self._num_open >= self.settings.max_open_requests:
            message = f"{self._num_open} requests are open; try again later"
            raise ServiceError(429, message, code="queue_full", retry_after_s=BUSY_RETRY_S)
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    @contextmanager
    def receiving(self, request: Request) -> Iterator[None]:
        """Reserve memory for a body until it is decoded; raises a 429 when the bodies of others fill it."""
        length = request.headers.get("content-length", "")
        num_bytes = int(length) if length.isdecimal() else self.settings.max_body_bytes
        if self._receiving_bytes and self._receiving_bytes + num_bytes > self.settings.max_received_bytes:
            message = "the bodies of other requests fill the memory for them; try again later"
            raise ServiceError(429, message, code="queue_full", retry_after_s=BUSY_RETRY_S)
        self._receiving_bytes += num_bytes
        try:
            yield
        finally:
            self._receiving_bytes -= num_bytes

    def new_job_id(self) -> str:
        """Return an id that nobody can guess."""
        return f"job_{secrets.token_urlsafe(24)}"

    def remove_expired(self) -> None:
        """Remove the jobs and pictures whose time is over."""
        self.background.remove_expired()
        self.stored.remove_expired()

    def close(self) -> None:
        """Stop what waits for jobs, and remove the stored pictures."""
        for edit in self.background:
            if edit.worker is not None:
                edit.worker.cancel()
        self.stored.close()

    def _remove_pictures(self, edit: BackgroundEdit) -> None:
        for picture in (edit.reply or {}).get("data", ()):
            self.stored.remove(picture["id"])


def state_of(request: Request) -> ServiceState:
    """Return the state of the application that answers a request."""
    return cast(ServiceState, request.app.state.service)


def token_of(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> Token:
    """Return whose request it is; raises a 401 without a valid token, where tokens are set."""
    token = state_of(request).tokens.authenticate(request.headers.get("authorization"))
    request.scope["owner"] = token.name
    return token


async def admitted_token(request: Request, token: Annotated[Token, Depends(token_of)]) -> AsyncIterator[Token]:
    """Admit a request for an edit, until it is answered; raises a 429 or a 503 before the body is read."""
    state = state_of(request)
    if not state.dispatcher.ready:
        raise ServiceError(503, "the service accepts no edits now", code="not_ready", retry_after_s=RESTART_S)
    request.scope["quota_headers"] = state.tokens.count_request(token)
    with state.open_request():
        yield token


State = Annotated[ServiceState, Depends(state_of)]
Caller = Annotated[Token, Depends(token_of)]
AdmittedCaller = Annotated[Token, Depends(admitted_token)]
