"""Trainings of the recipes that survive being killed: a run started again ends with the same bits."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pbe.demo.weights.recipe import cosine
from pbe.runtime.files import atomic_file

SAVE_EVERY_S = 60.0


class Stateful(Protocol):
    """What torch's modules, optimizers and diffusers' average have in common."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass(frozen=True)
class Progress:
    """Where a training keeps its state, and what else than its parameters decides the next step.

    `key` names the recipe and its data: the state of another key is not used. `rng` is the generator that the loss
    draws from; torch's global generator is kept as well.
    """

    path: Path
    key: str
    members: Mapping[str, Stateful]
    rng: np.random.Generator
    save_every_s: float = SAVE_EVERY_S


def optimize(
    parameters: list[nn.Parameter],
    loss_of: Callable[[int], Tensor],
    steps: int,
    lr: float,
    name: str,
    progress: Progress,
    *,
    rate: Callable[[int], float] | None = None,
    after_step: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Run AdamW at `lr` times `rate(step)`, by default a cosine to zero; return the loss of each step.

    `progress` is read first, and written every `save_every_s` seconds and after the last step. `after_step` runs after
    each update, for example of an average.
    """
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-2)
    losses = _load(progress, optimizer)
    saved_at = time.monotonic()
    with tqdm(total=steps, initial=len(losses), desc=name, mininterval=5) as bar:
        for step in range(len(losses), steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * (rate(step) if rate else cosine(step, steps))
            loss = loss_of(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            after_step(step)
            losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            if time.monotonic() - saved_at > progress.save_every_s or step + 1 == steps:
                _save(progress, optimizer, losses)
                saved_at = time.monotonic()
    return losses


def _load(progress: Progress, optimizer: torch.optim.Optimizer) -> list[float]:
    if not progress.path.is_file():
        return []
    state = torch.load(progress.path, map_location="cpu", weights_only=True)
    if state["key"] != progress.key:
        tqdm.write(f"{progress.path}: the state of another recipe or of other data; the training starts anew")
        return []
    for name, member in progress.members.items():
        member.load_state_dict(state["members"][name])
    optimizer.load_state_dict(state["optimizer"])
    progress.rng.bit_generator.state = state["numpy"]
    torch.set_rng_state(state["torch"])
    return list(state["losses"])


def _save(progress: Progress, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    state = {
        "key": progress.key,
        "members": {name: member.state_dict() for name, member in progress.members.items()},
        "optimizer": optimizer.state_dict(),
        "numpy": progress.rng.bit_generator.state,
        "torch": torch.get_rng_state(),
        "losses": losses,
    }
    progress.path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(progress.path) as part:
        torch.save(state, part)
