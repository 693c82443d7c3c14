"""The routes beside the edits: jobs, results, models, and the state of the service."""

import asyncio
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel

from pbe.serving.service.edit_tasks import BackgroundEdit, JobList, JobObject
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.openapi import errors
from pbe.serving.service.replies import (
    MEDIA_TYPES,
    RESULTS_PATH,
    EditReply,
    ModelList,
    ModelObject,
    json_bytes,
    model_object,
    reply_from_store,
    reply_with_urls,
)
from pbe.serving.service.service_state import Caller, State

PRIVATE = {"cache-control": "private, no-store", "content-security-policy": "default-src 'none'; sandbox"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
Id = Annotated[str, Path(max_length=256)]

router = APIRouter()


class Health(BaseModel):
    """The state of the service, why it accepts no edits, and what its operator should look at."""

    status: str
    reason: str | None = None
    problems: list[str] = []


_HEALTH_ERRORS: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "No."},
    **errors(403, 431),
}


@router.get("/v1/jobs", tags=["jobs"], operation_id="list_jobs", responses=errors(401, 403, 431))
async def list_jobs(request: Request, state: State, token: Caller) -> JobList:
    """Return the jobs of the caller's token, the newest first."""
    base_url = state.base_url(request)
    return JobList(data=[edit.shown(base_url) for edit in state.background.of(token.name)])


@router.get("/v1/jobs/{job_id}", tags=["jobs"], operation_id="get_job", responses=errors(400, 401, 403, 404, 431))
async def get_job(job_id: Id, request: Request, state: State, token: Caller) -> JobObject:
    """Return a job with its status, its place in the queue and its progress."""
    return state.background.find(job_id, token.name).shown(state.base_url(request))


@router.get(
    "/v1/jobs/{job_id}/result",
    tags=["jobs"],
    operation_id="get_job_result",
    response_model=EditReply,
    responses=errors(400, 401, 403, 404, 409, 431, 500, 503, 504),
)
async def get_job_result(job_id: Id, request: Request, state: State, token: Caller) -> Response:
    """Return what the request would have been answered with if its sender had waited."""
    edit = state.background.find(job_id, token.name)
    reply = _reply_of(edit)
    if edit.task.parameters.response_format == "url":
        shown = reply_with_urls(reply, state.base_url(request))
    else:
        shown = await to_thread.run_sync(reply_from_store, reply, state.stored, token.name)
    edit.is_fetched = True
    return Response(await to_thread.run_sync(json_bytes, shown), media_type="application/json")


def _reply_of(edit: BackgroundEdit) -> dict[str, Any]:
    if edit.error is not None:
        raise edit.error
    if edit.reply is None:
        raise ServiceError(409, f"the job is {edit.status}: its result comes when it is done", code="job_not_done")
    return edit.reply


@router.delete("/v1/jobs/{job_id}", tags=["jobs"], operation_id="cancel_job", responses=errors(400, 401, 403, 404, 431))
async def cancel_job(job_id: Id, request: Request, state: State, token: Caller) -> JobObject:
    """Cancel a job that is queued or painted; remove one that has ended, with its result."""
    edit = state.background.find(job_id, token.name)
    if edit.ended:
        state.background.remove(edit)
    else:
        edit.task.cancel()
        if edit.worker is not None:
            await asyncio.wait({edit.worker})
    return edit.shown(state.base_url(request))


@router.get(
    RESULTS_PATH + "/{picture_id}",
    tags=["images"],
    operation_id="get_picture",
    response_class=Response,
    responses={
        200: {"content": dict.fromkeys(MEDIA_TYPES.values(), _BINARY)},
        **errors(400, 401, 403, 404, 431),
    },
)  # fmt: skip
async def get_picture(picture_id: Id, state: State, token: Caller) -> Response:
    """Return an edited picture of the caller's token, until it expires."""
    found = await to_thread.run_sync(state.stored.read, picture_id, token.name)
    if found is None:
        raise ServiceError(404, "no such picture; it may have expired", param="picture_id", code="picture_not_found")
    return Response(found[0], media_type=found[1], headers=PRIVATE)


@router.get("/v1/models", tags=["models"], operation_id="list_models", responses=errors(401, 403, 431))
async def list_models(state: State, token: Caller) -> ModelList:
    """Return the models that paint, the default one first."""
    return ModelList(data=[model_object(info) for info in state.dispatcher.models.list()])


@router.get(
    "/v1/models/{model_id:path}", tags=["models"], operation_id="get_model", responses=errors(400, 401, 403, 404, 431)
)
async def get_model(model_id: Id, state: State, token: Caller) -> ModelObject:
    """Return a model."""
    for info in state.dispatcher.models.list():
        if model_id in (info.id, info.source):
            return model_object(info)
    served = ", ".join(info.id for info in state.dispatcher.models.list())
    message = f"model {model_id} is not served here; served are {served}"
    raise ServiceError(404, message, param="model", code="model_not_found")


@router.get("/healthz", tags=["state"], operation_id="get_health", responses=_HEALTH_ERRORS)
async def get_health(state: State, response: Response) -> Health:
    """Return whether the process works; one whose painter fails again and again should be replaced."""
    if not state.dispatcher.healthy:
        response.status_code = 503
        return Health(status="failed", reason="the painter fails; the log says why")
    return Health(status="ok")


@router.get("/readyz", tags=["state"], operation_id="get_readiness", responses=_HEALTH_ERRORS)
async def get_readiness(state: State, response: Response) -> Health:
    """Return whether edits are accepted, and which models have a newer version that cannot be used."""
    names = state.dispatcher.models.state.problems
    problems = [f"model {name}: its newest version is not in use; the log says why" for name in names]
    if state.dispatcher.ready:
        return Health(status="ok", problems=problems)
    response.status_code = 503
    draining = state.dispatcher.state.draining
    reason = "shutting down" if draining else "the model is not loaded, or fails"
    return Health(status="not ready", reason=reason, problems=problems)


@router.get(
    "/metrics",
    tags=["state"],
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401, 403, 431)},
)
async def get_metrics(state: State, token: Caller) -> Response:
    """Return the metrics for Prometheus, which sends a token where tokens are set."""
    return Response(state.metrics.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
