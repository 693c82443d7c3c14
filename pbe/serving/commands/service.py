"""`pbe serve` and `pbe app`: models as an HTTP service, and the same service with a page for people."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from pbe.errors import UserError
from pbe.serving.commands.flags import Device, Number, Positive, Precision, Whole

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pbe.serving.service.settings import ServiceSettings

serve_app = App(
    name="serve",
    help_epilogue="""\
examples:
  pbe serve
  pbe serve --host 0.0.0.0 --token-file tokens.txt --model photo \\
            --model models:/paint-by-example@champion

A request, when it serves on the default address:
  curl http://127.0.0.1:8000/v1/images/edits -F 'image[]=@photo.jpg' \\
       -F 'image[]=@cup.jpg' -F mask=@mask.png""",
)
page_app = App(
    name="app",
    help_epilogue="""\
example:
  pbe app --model photo --port 7860""",
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServiceFlags:
    """Address, models and limits."""

    host: Annotated[
        str, Parameter(metavar="ADDRESS", help="127.0.0.1 is reached from this machine only; others need --token-file")
    ] = "127.0.0.1"
    port: Annotated[Whole, Parameter(help="0 chooses a free one")] = 8000
    token_file: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="a line NAME:TOKEN for each user, or NAME:sha256:HEX; see docs/service.md"),
    ] = None
    model: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="MODEL",
            show_default="that of pbe edit",
            help="a model as for pbe edit; may be given several times, the first is the default",
        ),
    ] = ()
    device: Device = "auto"
    precision: Annotated[Precision, Parameter(help="of the models; auto is bf16 where it is fast, else fp32")] = "auto"
    max_batch: Annotated[Positive, Parameter(help="windows of several requests that are painted together")] = 4
    max_wait_ms: Annotated[
        Number, Parameter(metavar="MS", help="how long a request waits for others to fill a batch")
    ] = 20
    max_queue: Annotated[Positive, Parameter(help="requests that may wait; further ones get status 429")] = 64
    reload_every_s: Annotated[
        Number, Parameter(metavar="S", help="seconds between looks at the registry's aliases; 0 never looks")
    ] = 10


@serve_app.default
def serve(*, flags: ServiceFlags = ServiceFlags()) -> None:
    """Serve until Ctrl-C or SIGTERM, and paint accepted requests first."""
    _run(flags, None, "{address}  (documentation: {address}/docs, press Ctrl-C to stop)")


@page_app.default
def serve_page(*, flags: ServiceFlags = ServiceFlags()) -> None:
    """Serve the page at /, and the service below /v1, until Ctrl-C."""

    def extend(application: "FastAPI") -> "FastAPI":
        from pbe.serving.page.mounting import mount_page

        return mount_page(application)

    _run(flags, extend, "{address}  (press Ctrl-C to stop)")


def _run(flags: ServiceFlags, extend: "Callable[[FastAPI], FastAPI] | None", ready: str) -> None:
    settings = _settings(flags)
    _log_to_stderr()
    from pbe.serving.service.dispatcher import Dispatcher
    from pbe.serving.service.open_models import open_models
    from pbe.serving.service.server import run_service

    models = open_models(
        flags.model,
        device=flags.device,
        precision=flags.precision,
        max_batch=flags.max_batch,
        follow_s=flags.reload_every_s,
    )
    dispatcher = Dispatcher(
        models, max_batch=flags.max_batch, max_wait_s=flags.max_wait_ms / 1000, max_queue=flags.max_queue
    )
    run_service(
        dispatcher,
        settings,
        extend=extend,
        on_ready=lambda address: print(ready.format(address=address), flush=True),
    )


def _settings(flags: ServiceFlags) -> "ServiceSettings":
    """Return the service's settings; raises UserError for a flag that is out of range."""
    for name, value in (("--max-wait-ms", flags.max_wait_ms), ("--reload-every-s", flags.reload_every_s)):
        if not 0 <= value < math.inf:
            raise UserError(f"{name} {value:g}: give a number that is not negative")
    if not 0 <= flags.port <= 65535:
        raise UserError(f"--port {flags.port}: give a number from 0 to 65535")
    from pbe.serving.service.settings import ServiceSettings

    if flags.token_file is None and not ServiceSettings.model_construct(host=flags.host).is_loopback:
        raise UserError(f"--host {flags.host}: other machines reach this address; give --token-file, or use 127.0.0.1")
    return ServiceSettings(host=flags.host, port=flags.port, tokens_file=flags.token_file)


def _log_to_stderr() -> None:
    """Write the service's log, a line for each request, to stderr; of other libraries warnings only."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pbe").setLevel(logging.INFO)
