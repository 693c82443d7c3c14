"""`POST /v1/images/edits`: receive, decode, queue; then answer with pictures, with a job, or with events."""

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile

from pbe.errors import UserError
from pbe.serving.service.edit_fields import RequestedEdit, parse_form, parse_json
from pbe.serving.service.edit_inputs import DecodedEdit, decode_request
from pbe.serving.service.edit_stream import Previews, edit_events
from pbe.serving.service.edit_tasks import BackgroundEdit, EditTask, refusal
from pbe.serving.service.openai_errors import CLIENT_LEFT, ServiceError, invalid
from pbe.serving.service.openapi import EDIT_BODY, EDIT_RESPONSES
from pbe.serving.service.replies import json_bytes, reply_in_base64, reply_with_urls, stored_reply
from pbe.serving.service.service_state import AdmittedCaller, ServiceState, State, state_of
from pbe.serving.service.tokens import Token

MAX_FORM_PARTS = 128  # fields, and as many files
JSON = "application/json"

router = APIRouter(prefix="/v1", tags=["images"])


@router.post(
    "/images/edits",
    operation_id="create_image_edit",
    summary="Paint the object of one picture into the masked part of another",
    responses=EDIT_RESPONSES,
    openapi_extra={"requestBody": EDIT_BODY},
)
async def create_edit(
    request: Request,
    state: State,
    token: AdmittedCaller,
    in_background: Annotated[
        Literal["", "true", "false", "1", "0"],
        Query(alias="async", description="true, 1 or empty: answer 202 with a job at once."),
    ] = "false",
) -> Response:
    """Paint the exemplar's object into the masked part of the source; unmasked pixels stay as they are.

    The first image is the source and the further ones, or `reference_image`, are pictures of the object to paint. The
    mask is transparent where to repaint, or white there if all of it is opaque.
    """
    with ExitStack() as until_queued:
        _begin_jobs(state, token, 1, until_queued)
        decoded = await _received(request, state)
        _begin_jobs(state, token, len(decoded.edits) - 1, until_queued)
        previews = Previews(decoded.parameters.partial_images or 0)
        task = _submit(decoded, state, token, previews)
        until_queued.pop_all()
    if in_background not in ("false", "0"):
        response = _in_background(request, state, token, task)
    elif decoded.parameters.stream:
        response = _stream(request, state, task, previews)
    else:
        del decoded  # the encoder and the queue hold what they need of it
        response = await _wait(request, state, token, task)
    response.headers.update(request.scope["quota_headers"])
    return response


def _begin_jobs(state: ServiceState, token: Token, number: int, until_queued: ExitStack) -> None:
    """Count jobs; they end with `until_queued`, or else with the jobs themselves."""
    state.tokens.begin_jobs(token, number)
    until_queued.callback(state.tokens.end_jobs, token, number)


async def _received(request: Request, state: ServiceState) -> DecodedEdit:
    """Receive and decode the body; raises ServiceError for what is wrong with it."""
    with state.receiving(request):
        requested = await _requested(request, state.settings.max_images)
        return await to_thread.run_sync(decode_request, requested, state.settings, limiter=state.decoders)


async def _requested(request: Request, max_images: int) -> RequestedEdit:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == JSON:
        return await to_thread.run_sync(parse_json, await request.body(), max_images)
    if media_type != "multipart/form-data":
        message = f"content-type is {media_type[:100] or 'missing'}: send {JSON} or multipart/form-data"
        raise ServiceError(415, message, code="unsupported_media_type")
    limit = state_of(request).settings.max_body_bytes
    async with request.form(max_files=MAX_FORM_PARTS, max_fields=MAX_FORM_PARTS, max_part_size=limit) as form:
        items = [(name, await _form_value(value)) for name, value in form.multi_items()]
    return await to_thread.run_sync(parse_form, [(name, value) for name, value in items if value != b""], max_images)


async def _form_value(value: str | UploadFile) -> str | bytes:
    """Return a field's text, or a file's bytes; the file's name is not looked at."""
    if isinstance(value, str):
        return value
    data = await value.read()
    if not data and value.filename:
        raise invalid("a file of the form is empty", None, "invalid_image")
    return data  # empty for a file that was not chosen in a browser's form


def _submit(decoded: DecodedEdit, state: ServiceState, token: Token, previews: Previews) -> EditTask:
    """Queue the variants, all or none; raises ServiceError when they are not accepted."""
    on_preview = previews.offer if previews.num_wanted else None
    try:
        jobs = state.dispatcher.submit_all(
            decoded.edits, decoded.parameters.model, owner=token.name, on_preview=on_preview
        )
    except UserError as error:
        raise refusal(error) from None
    for job in jobs:
        job.future.add_done_callback(lambda _: state.tokens.end_jobs(token, 1))
    return EditTask(jobs, decoded)


async def _wait(request: Request, state: ServiceState, token: Token, task: EditTask) -> Response:
    """Return the reply once all pictures are painted; cancel the jobs when the client leaves."""
    working = asyncio.create_task(task.result(state.settings.edit_timeout_s, state.encoders))
    leaving = asyncio.create_task(_client_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
    if not working.done():
        return Response(status_code=CLIENT_LEFT)
    encoded = working.result()
    if task.parameters.response_format == "url":
        stored = await to_thread.run_sync(stored_reply, encoded, state.stored, token.name)
        reply = partial(reply_with_urls, stored, state.base_url(request))
    else:
        reply = partial(reply_in_base64, encoded)
    return Response(await to_thread.run_sync(lambda: json_bytes(reply())), media_type=JSON)


def _stream(request: Request, state: ServiceState, task: EditTask, previews: Previews) -> Response:
    request.scope["is_event_stream"] = True
    events = edit_events(task, previews, state.settings.edit_timeout_s, state.encoders)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


def _in_background(request: Request, state: ServiceState, token: Token, task: EditTask) -> Response:
    """Return the job, which is painted whether its sender stays or not."""
    edit = BackgroundEdit(state.new_job_id(), token.name, task, state.settings.url_lifetime_s)
    edit.worker = asyncio.create_task(_paint_in_background(edit, state))
    state.background.add(edit)
    base_url = state.base_url(request)
    shown = edit.shown(base_url).model_dump(mode="json")
    headers = {"location": f"{base_url}/v1/jobs/{edit.id}"}
    return Response(json_bytes(shown), 202, headers, media_type=JSON)


async def _paint_in_background(edit: BackgroundEdit, state: ServiceState) -> None:
    try:
        encoded = await edit.task.result(state.settings.edit_timeout_s, state.encoders)
    except ServiceError as error:
        edit.end(None, error)
        return
    reply = await to_thread.run_sync(stored_reply, encoded, state.stored, edit.owner)
    edit.end(reply, None)


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
