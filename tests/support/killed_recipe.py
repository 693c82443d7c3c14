"""Trains the photographs' recipe at a tiny size, where no library of another stage can be imported.

    python -m tests.support.killed_recipe PACKED OUT

Each part is first trained in a process that SIGKILL ends in its third update, then started again. Prints as JSON how
many updates the second start needed, by part.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

OTHER_STAGES = (
    "ray", "prefect", "mlflow", "polars", "dvc", "fiftyone", "datasets", "boto3", "obstore", "moto", "gradio",
    "fastapi", "sklearn", "matplotlib", "pyarrow", "pycocotools",
)  # fmt: skip
if __name__ == "__main__":
    for name in OTHER_STAGES:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError

import torch  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402

from pbe.demo.photo_weights.__main__ import PARTS, train_parts  # noqa: E402
from pbe.demo.photo_weights.recipe import ColourPhase, PhotoRecipe  # noqa: E402
from pbe.demo.weights import resumable  # noqa: E402

TINY = replace(  # four updates of each part
    PhotoRecipe(), vae_channels=(8, 8, 16), vae_steps=2, vae_cooldown_from=1, vae_batch=2, towers_steps=4,
    vae_colour_phases=(ColourPhase(1, 0.6, 20.0, 0.5), ColourPhase(1, 1.0, 60.0, 0.5)), towers_batch=3,
    prior_steps=4, prior_batch=2, prior_windows=1, prior_exemplars=1,
)  # fmt: skip


def main() -> None:
    packed, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    resumable.time = SimpleNamespace(monotonic=count(0, 1000).__next__)  # type: ignore[assignment]  # saves each step
    updates: dict[str, int] = {}
    for part in PARTS:
        _train_until_killed(part, packed, out)
        updates[part] = 0

        def increase(*_: Any, part: str = part) -> None:
            updates[part] += 1

        hook = register_optimizer_step_pre_hook(increase)
        train_parts([part], TINY, packed, out, torch.device("cpu"))
        hook.remove()
    print(json.dumps(updates))


def _train_until_killed(part: str, packed: Path, out: Path) -> None:
    child = os.fork()
    if child == 0:
        updates = count(1)

        def kill(*_: Any) -> None:
            if next(updates) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        register_optimizer_step_pre_hook(kill)
        train_parts([part], TINY, packed, out, torch.device("cpu"))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL  # noqa: PT018


if __name__ == "__main__":
    main()
