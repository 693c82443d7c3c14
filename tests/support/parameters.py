"""The parameters of params.yaml, with the changes that a test needs."""

from pathlib import Path
from typing import Any

from pbe import settings
from pbe.settings import load_settings

ROOT = Path(__file__).parents[2]
_AS_GIVEN = load_settings(ROOT / "params.yaml")
# Tests compare bits, which `auto` would let the processor decide.
PARAMETERS = _AS_GIVEN.replace(
    train=_AS_GIVEN.train.replace(precision="fp32"), evaluate=_AS_GIVEN.evaluate.replace(precision="fp32")
)


def acquire(**changes: Any) -> settings.Acquire:
    return PARAMETERS.acquire.replace(**changes)


def huggingface(**changes: Any) -> settings.HuggingFace:
    return PARAMETERS.acquire.huggingface.replace(**changes)


def world(**changes: Any) -> settings.World:
    return PARAMETERS.acquire.world.replace(**changes)


def filtering(**changes: Any) -> settings.Filter:
    return PARAMETERS.filter.replace(**changes)


def curate(**changes: Any) -> settings.Curate:
    return PARAMETERS.curate.replace(**changes)


def method(**changes: Any) -> settings.Method:
    return PARAMETERS.method.replace(**changes)


def mask(**changes: Any) -> settings.Mask:
    return PARAMETERS.method.mask.replace(**changes)


def augmentation(**changes: Any) -> settings.ExemplarAugmentation:
    return PARAMETERS.method.exemplar.replace(**changes)


def encode(**changes: Any) -> settings.Encode:
    return PARAMETERS.encode.replace(**changes)


def train(**changes: Any) -> settings.Train:
    return PARAMETERS.train.replace(**changes)


def bench(**changes: Any) -> settings.Bench:
    return PARAMETERS.bench.replace(**changes)


def evaluate(**changes: Any) -> settings.Evaluate:
    return PARAMETERS.evaluate.replace(**changes)


def register(**changes: Any) -> settings.Register:
    return PARAMETERS.register_.replace(**changes)
