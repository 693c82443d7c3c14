"""The models of the tables: the paper's ablation (table 2), and the full method trained on box masks alone.

A variant is a set of changes to params.yaml, written as `dvc exp run -S` takes them (see docs/method.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pbe.settings import Settings

_FROM_SCRATCH = {"train.prior": False}
_NO_AUGMENTATION = {"method.exemplar.augment": False, "method.mask.shape": "box"}
_NO_BOTTLENECK = {"method.bottleneck": False}
_NO_GUIDANCE = {"train.drop_probability": 0.0, "evaluate.guidance_scale": 1.0, "evaluate.sweep": [1.0]}


@dataclass(frozen=True)
class Variant:
    """A model of the tables: `changes` maps dotted keys of params.yaml to values."""

    name: str
    title: str
    changes: Mapping[str, Any]

    @property
    def is_guided(self) -> bool:
        """Whether the model is trained with dropped conditions, so that guidance can be applied."""
        return "train.drop_probability" not in self.changes


ABLATION = (
    Variant("baseline", "baseline", _FROM_SCRATCH | _NO_AUGMENTATION | _NO_BOTTLENECK | _NO_GUIDANCE),
    Variant("prior", "+ prior", _NO_AUGMENTATION | _NO_BOTTLENECK | _NO_GUIDANCE),
    Variant("augmentation", "+ augmentation", _NO_BOTTLENECK | _NO_GUIDANCE),
    Variant("bottleneck", "+ bottleneck", _NO_GUIDANCE),
    Variant("guidance", "+ guidance", {}),
)
FULL = ABLATION[-1]
BOX_MASKS = Variant("box_masks", "box masks", {"method.mask.shape": "box"})
VARIANTS = (*ABLATION, BOX_MASKS)


def settings_of(variant: Variant, settings: Settings, seed: int) -> Settings:
    """Return the project's settings with a variant's changes and another seed; the changed settings are validated."""
    content = settings.model_dump(by_alias=True)
    for key, value in {**variant.changes, "seed": seed}.items():
        *sections, name = key.split(".")
        section = content
        for each in sections:
            section = section[each]
        assert name in section, key
        section[name] = value
    return Settings.model_validate(content)
