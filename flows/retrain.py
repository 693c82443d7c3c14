"""Looks for new images and trains on them: the weekly run. It is a deployment of prefect.yaml and no stage.

DVC sees changes in the project, and none in a bucket or in the folder that `acquire.root` names. This run therefore
acquires whatever the stage's state is; when it finds nothing new, no other stage runs.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.notification import notifies
from flows.reproduction import STAGES, Outcome, StageName, run_stages


@notifies
@flow(
    name="retrain",
    flow_run_name="retrain",
    persist_result=False,
)
def retrain(look_for_images: bool = True, train_again: bool = False) -> dict[str, Outcome] | State[Any]:
    """Acquire new images and, where there are any, train a model on them, evaluate it and ask the gate.

    Args:
        look_for_images: run acquire although its code and parameters have not changed
        train_again: run train although no image is new; with the same parameters and data it makes the same model
    """
    forced: list[StageName] = []
    if look_for_images:
        forced.append("acquire")
    if train_again:
        forced.append("train")
    return run_stages(STAGES, forced)
