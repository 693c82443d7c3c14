"""The service on Ray Serve: replicas of the application on several devices or machines.

    serve run pbe.serving.service.ray_serve:application models=photo num_replicas=2
    serve deploy FILE          # see docs/deployment.md

Ray starts and replaces the replicas, checks their health, and leads each request to one of them. A replica is what
`pbe serve` is: the application with a dispatcher, which batches. Ray's own `@serve.batch` calls a function with all
requests that are there; ours paints windows of one group only, serves owners in rotation, and cancels each alone.

Background jobs and stored pictures live in the replica that painted them: requests with one `X-Session-Id` header reach
one replica.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pbe.serving.service.application import create_application
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import MAX_BATCH
from pbe.serving.service.open_models import open_models
from pbe.serving.service.settings import ServiceSettings

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class RayServeSettings(BaseModel):
    """The arguments of `application`: of the replicas, and of each one's service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] | str = ()  # as `pbe serve --model`; in one text, separated by commas
    device: str = "auto"
    precision: str = "auto"
    follow_s: float = Field(10.0, ge=0)  # between readings of the registry's aliases; 0 = never
    max_batch: int = Field(MAX_BATCH, ge=1)
    max_wait_s: float = Field(0.02, ge=0)
    max_queue: int = Field(64, ge=1)  # of each replica
    num_replicas: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)  # of each replica; PyTorch uses as many threads
    num_gpus: float = Field(0.0, ge=0)
    service: ServiceSettings = ServiceSettings()

    @property
    def model_names(self) -> tuple[str, ...]:
        return tuple(filter(None, self.models.split(","))) if isinstance(self.models, str) else self.models


class Replica:
    """One process with one device: the application and its dispatcher."""

    def __init__(self, settings: RayServeSettings) -> None:
        self.settings = settings
        models = open_models(
            settings.model_names,
            device=settings.device,
            precision=settings.precision,
            max_batch=settings.max_batch,
            follow_s=settings.follow_s,
        )
        self.dispatcher = Dispatcher(
            models, max_batch=settings.max_batch, max_wait_s=settings.max_wait_s, max_queue=settings.max_queue
        )
        self.dispatcher.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray's name
        application = create_application(self.dispatcher, self.settings.service)
        if self.settings.service.tokens_file is None:
            application.add_middleware(LoopbackOnly)
        return application

    def check_health(self) -> None:
        """Raise when the painter is broken; Ray then replaces the replica."""
        if not self.dispatcher.healthy:
            raise RuntimeError("the painter fails again and again")

    def __del__(self) -> None:
        """Finish what was accepted; Ray calls it once the replica has answered its requests."""
        if hasattr(self, "dispatcher"):
            self.dispatcher.drain(self.settings.service.drain_timeout_s)


class LoopbackOnly:
    """Answers clients of this machine only: without tokens, the service is open to nobody else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = (scope.get("client") or ("",))[0]
        if scope["type"] != "http" or host in LOOPBACK:
            await self._app(scope, receive, send)
            return
        message = "this service has no tokens, so that it answers its own machine only: set service.tokens_file"
        error = {"message": message, "type": "permission_error", "param": None, "code": "tokens_needed"}
        await JSONResponse({"error": error}, 403)(scope, receive, send)


def application(arguments: RayServeSettings) -> serve.Application:
    """Return the application for `serve run` and `serve deploy`, which check the arguments."""
    limits: dict[str, Any] = {
        "num_replicas": arguments.num_replicas,
        "ray_actor_options": {"num_cpus": arguments.num_cpus, "num_gpus": arguments.num_gpus},
        "max_ongoing_requests": arguments.service.max_open_requests + 32,  # the application refuses with a reason
        "graceful_shutdown_timeout_s": arguments.service.drain_timeout_s + 10,
        "health_check_period_s": 5,
        "request_router_config": {"request_router_class": ROUTER},
    }
    deployment = serve.deployment(name="paint-by-example", **limits)(serve.ingress()(Replica))
    return deployment.bind(arguments)
