"""The folder of each trained model: a project whose inputs are links to those of the main project.

The world, its curated boxes and the backbone are the same for all models; only what depends on a variant or on a seed
is in its own folder. Models with the same section `method` share their latents, whatever their seed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from pbe import layout
from pbe.demo.tables.variants import Variant, settings_of
from pbe.runtime.files import write_text
from pbe.settings import Settings

FOLDER = layout.STATE / "tables"
SHARED = (layout.RAW, layout.CURATED, layout.TINY, layout.BACKBONE)


@dataclass(frozen=True)
class Project:
    """A model to train: its folder in the layout of a project, and its settings, which contain the seed."""

    variant: Variant
    folder: Path
    settings: Settings

    @property
    def name(self) -> str:
        """The variant's name and the seed."""
        return f"{self.variant.name}-{self.settings.seed}"


def open_project(root: Path, variant: Variant, settings: Settings, seed: int) -> Project:
    """Make the folder of a model below `root`, with params.yaml and links to the shared inputs; return the project.

    `settings` are the main project's: its seed decides the encoded samples, `seed` the initial weights that are random,
    the order of the samples, their noise and the noise of the sampler. What earlier runs left in the folder stays.
    """
    changed = settings_of(variant, settings, seed)
    project = Project(variant, root / FOLDER / f"{variant.name}-{seed}", changed)
    content = yaml.safe_dump(changed.model_dump(mode="json", by_alias=True), sort_keys=False)
    write_text(project.folder / layout.PARAMS, content)
    for path in SHARED:
        _link(project.folder / path, root / path)
    shared = root / FOLDER / "latents" / latents_name(changed, settings.seed)
    for path in (layout.RAW, layout.CURATED, layout.BACKBONE):
        _link(shared / path, root / path)
    (shared / layout.LATENTS).mkdir(parents=True, exist_ok=True)
    _link(project.folder / layout.LATENTS, shared / layout.LATENTS)
    return project


def latents_project(project: Project) -> Path:
    """Return the folder, in the layout of a project, in which the latents of a project are encoded."""
    return (project.folder / layout.LATENTS).resolve().parents[1]


def latents_name(settings: Settings, seed: int) -> str:
    """Return the name of the latents that settings and a seed lead to: a digest of all they depend on but the code."""
    sections = [settings.method.model_dump(), settings.encode.model_dump(exclude={"num_workers"}), seed]
    return hashlib.blake2b(json.dumps(sections, sort_keys=True).encode(), digest_size=6).hexdigest()


def _link(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`; a link to something else is replaced."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        if link.readlink() == target.absolute():
            return
        link.unlink()
    link.symlink_to(target.absolute())
