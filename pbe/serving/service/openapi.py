"""The OpenAPI document: what FastAPI cannot read from the code, the two kinds of bodies of an edit, and its errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pbe.serving.service.edit_fields import EditParameters, EditRequest
from pbe.serving.service.edit_tasks import JobObject
from pbe.serving.service.openai_errors import ErrorBody
from pbe.serving.service.replies import EditReply

_SCHEMAS = "#/components/schemas/"
_BODY_MODELS = {"EditRequest": EditRequest, "EditForm": EditParameters}
_FILE = {"type": "string", "format": "binary"}
_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
_FILES = {"type": "array", "items": _FILE, "maxItems": 16}
_FORM_FILES = {
    "image": {**_FILES, "minItems": 1, "description": "The source, followed by exemplars; also image[], image[0] ..."},
    "reference_image": {**_FILES, "description": "Exemplars: pictures of the one object to paint."},
    "reference_mask": {**_FILES, "description": "Where the object is in each exemplar, white."},
    "mask": {**_FILE, "description": "Where to repaint: transparent; or white, if all of it is opaque."},
    "mask_image": {**_FILE, "description": "Another name of mask."},
    "regions": {"type": "string", "description": "JSON: several masks, each with its object, as in EditRequest."},
    "guidance_interval": {"type": "string", "description": "JSON: [a, b]."},
}

EDIT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"$ref": f"{_SCHEMAS}EditForm"}},
        "application/json": {"schema": {"$ref": f"{_SCHEMAS}EditRequest"}},
    },
}

_REASONS = {
    400: "A field is wrong or missing.",
    401: "No valid token.",
    403: "Without tokens, only this machine's own pages and programs are answered.",
    404: "There is none, or it is another token's.",
    408: "The body came too slowly.",
    409: "The job has been cancelled, or is not done.",
    413: "The body is too large.",
    415: "The body is neither JSON nor multipart/form-data.",
    429: "A quota is used up, or the queue is full; Retry-After says when to try again.",
    431: "Too many headers.",
    500: "A bug; the service's log has the reason.",
    503: "The service is starting or shutting down.",
    504: "The edit took too long.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of these errors."""
    return {status: {"model": ErrorBody, "description": _REASONS[status]} for status in sorted(statuses)}


EDIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": EditReply,
        "description": "The edited pictures; with stream, events until image_edit.completed.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    },
    202: {"model": JobObject, "description": "With async: the job."},
    **errors(400, 401, 403, 404, 408, 409, 413, 415, 429, 431, 500, 503, 504),
}  # fmt: skip


def document_bodies(application: FastAPI) -> None:
    """Complete the application's OpenAPI document."""

    def openapi() -> dict[str, Any]:
        if application.openapi_schema is None:
            document = get_openapi(
                title=application.title,
                version=application.version,
                description=application.description,
                routes=application.routes,
            )
            schemas = document["components"]["schemas"]
            for name, model in _BODY_MODELS.items():
                schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
                schemas |= schema.pop("$defs", {})
                schemas[name] = schema
            _make_form(schemas["EditForm"])
            _leave_out_422(document)
            application.openapi_schema = document
        return application.openapi_schema

    application.openapi = openapi  # type: ignore[method-assign]


def _make_form(schema: dict[str, Any]) -> None:
    """Turn the parameters of an edit into the schema of a form: a form has no null, and has files."""
    for name, field in schema["properties"].items():
        field |= next(kind for kind in field.pop("anyOf") if kind.get("type") != "null")
        field.pop("default", None)
        schema["properties"][name] = field
    schema["properties"] |= _FORM_FILES
    schema |= {"title": "EditForm", "required": ["image"], "description": "An edit as a multipart form."}


def _leave_out_422(document: dict[str, Any]) -> None:
    """Remove FastAPI's own validation errors: this application answers 400 with an ErrorBody."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
