"""Errors in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from pbe.errors import UserError, one_line

INVALID_REQUEST, RATE_LIMIT, SERVER = "invalid_request_error", "rate_limit_error", "server_error"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: INVALID_REQUEST, 429: RATE_LIMIT}
CLIENT_LEFT = 499  # the status in the log when nobody is there to get one
_MAX_SHOWN = 100  # characters of a value that a message repeats


class ErrorDetails(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str = Field(examples=[INVALID_REQUEST])
    param: str | None = Field(description="The field of the request that the error is about.")
    code: str | None = Field(examples=["invalid_image"])


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetails


class ServiceError(HTTPException):
    """An error with its status, and what OpenAI's clients show of it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        sent = dict(headers or {})
        if retry_after_s is not None:
            sent["retry-after"] = str(max(1, round(retry_after_s)))
        super().__init__(status, message, sent)
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        """Return the answer's body."""
        return error_body(self.status_code, self.detail, self.param, self.code)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ServiceError:
    """Return a 400 about one field of the request."""
    return ServiceError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def from_validation(error: ValidationError | RequestValidationError) -> ServiceError:
    """Return the first of a model's errors as a 400 that names its field and its value."""
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    if first["type"] == "extra_forbidden":
        return invalid(f"unknown parameter: {_shown(param)}", _shown(param), "unknown_parameter")
    given = first.get("input")
    plain = given if isinstance(given, str) and given.isprintable() else repr(given)
    value = f" is {_shown(plain)}" if isinstance(given, str | int | float | bool) else ""
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return invalid(f"{_shown(param) or 'the request'}{value}: {reason}", _shown(param) or None, "invalid_value")


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    kind = _TYPES.get(status, SERVER if status >= 500 else INVALID_REQUEST)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def add_error_handlers(application: FastAPI, count: Callable[[str], None]) -> None:
    """Give every error of the application OpenAI's shape, and count its code.

    A bug becomes a 500, and its traceback stays in the log.
    """

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        body = error.body if isinstance(error, ServiceError) else error_body(error.status_code, str(error.detail))
        count(body["error"]["code"] or str(error.status_code))
        return JSONResponse(body, error.status_code, dict(error.headers or {}))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return await on_http(request, from_validation(error))

    async def on_user_error(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(400, one_line(error)), 400)

    async def on_client_left(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_LEFT)

    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        message = f"the service failed; its log has the reason under request {request.scope.get('request_id', '')}"
        return JSONResponse(error_body(500, message, code="internal_error"), 500)

    application.add_exception_handler(HTTPException, on_http)
    application.add_exception_handler(RequestValidationError, on_validation)
    application.add_exception_handler(ClientDisconnect, on_client_left)
    application.add_exception_handler(UserError, on_user_error)
    application.add_exception_handler(Exception, on_bug)


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
