"""The models that a command names, opened for a service; as the command line does, this reads the environment."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pbe.errors import UserError
from pbe.serving.commands.model_choice import (
    CHAMPION,
    PHOTO,
    default_model,
    keep_mlflow_quiet,
    model_cache,
    named_model,
    reads_database_directly,
    registry_address,
)
from pbe.serving.service.models import MAX_BATCH, SCHEME, Models, Registry


def open_models(
    names: Sequence[str] = (),
    *,
    device: str = "auto",
    precision: str = "auto",
    max_batch: int = MAX_BATCH,
    follow_s: float = 10.0,
) -> Models:
    """Return the models of these names, of which the first one is the default; `start` loads them.

    A name is `photo`, a folder, `models:/name@alias` or `models:/name/version`. Without a name, it is the model that
    `pbe edit` uses. Raises UserError for a name that means no model, and UnavailableError when the registry does not
    answer.
    """
    keep_mlflow_quiet()
    sources = model_sources(names)
    address = registry_address()
    registry = Registry(address, model_cache(), reads_database_directly()) if address else None
    return Models(
        sources, registry=registry, device=device, precision=precision, max_batch=max_batch, follow_s=follow_s
    )


def model_sources(names: Sequence[str]) -> Mapping[str, Path | str]:
    """Return what `Models` takes: each model's id, and its folder or its URI."""
    sources: dict[str, Path | str] = {}
    for name in names or (_default_name(),):
        source = name if name.startswith(SCHEME) else named_model(name).folder
        short = model_id(name)
        if short in sources:
            raise UserError(f"--model {name}: {sources[short]} has the name {short} as well; rename a folder")
        sources[short] = source
    return sources


def model_id(name: str) -> str:
    """Return what requests call a model: the champion has the registered model's name, a folder its own."""
    if name.startswith(SCHEME):
        return name.removeprefix(SCHEME).removesuffix("@champion").replace("/", "@")
    return name if name == PHOTO else Path(os.path.abspath(name)).name


def _default_name() -> str:
    choice, _ = default_model()
    return PHOTO if choice.name == PHOTO else CHAMPION
