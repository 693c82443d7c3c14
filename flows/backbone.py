"""Stage backbone: the pretrained parts in diffusers' layout, into models/backbone."""

from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.method.backbone import gather_backbone
from pbe.runtime.files import atomic_folder
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def backbone(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Write the backbone that `backbone.source` names to models/backbone, and return where it came from."""
    with atomic_folder(folder / layout.BACKBONE) as part:
        return gather_backbone(settings.backbone, folder, part)


backbone_flow = stage_flow("backbone", backbone)

if __name__ == "__main__":
    main(backbone_flow)
