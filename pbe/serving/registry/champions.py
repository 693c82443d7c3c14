"""The champions of a registered model in the order of time, the present one last: the model's tag `champions`.

An alias says who is champion now; a rollback needs to know who was. A champion that was made elsewhere, in MLflow's own
interface for example, is added when the history is next written.
"""

from typing import TYPE_CHECKING

from pbe.serving.registry.listings import CHAMPION, ModelListing

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY_TAG = "champions"
OLD_TAG = "was_champion"  # of versions that were champion before the history was kept
MAX_KEPT = 200


def champion_history(listing: ModelListing) -> tuple[int, ...]:
    """Return the versions that were champion, in the order of time, the present one last."""
    if HISTORY_TAG in listing.tags:
        history = [int(number) for number in listing.tags[HISTORY_TAG].split() if number.isdecimal()]
    else:
        history = [each.version for each in listing.versions if OLD_TAG in each.tags]
        history = [number for number in history if number != listing.champion]
    if listing.champion is not None and history[-1:] != [listing.champion]:
        history.append(listing.champion)
    return tuple(history)


def make_champion(client: "MlflowClient", listing: ModelListing, number: int) -> None:
    """Move the alias champion, and then note it: an interruption between the two leaves a history that is corrected."""
    history = champion_history(listing)
    if listing.champion != number:
        client.set_registered_model_alias(listing.name, CHAMPION, str(number))
        history = (*history, number)
    kept = " ".join(map(str, history[-MAX_KEPT:]))
    if listing.tags.get(HISTORY_TAG) != kept:
        client.set_registered_model_tag(listing.name, HISTORY_TAG, kept)


def previous_champion(listing: ModelListing) -> int | None:
    """Return the champion before the present one, or None when there was none."""
    history = champion_history(listing)
    return history[-2] if len(history) > 1 else None
