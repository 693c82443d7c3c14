"""Stage filter: rejects boxes of data/raw by rule, and writes the others to data/boxes."""

from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.filtering import box_filter, histograms
from pbe.runtime.files import write_json
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars


def filter_(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Reject annotated boxes by the rules under `filter`, and count them by reason."""
    report = box_filter.filter_boxes(folder / layout.RAW, folder / layout.BOXES, settings.filter, settings.seed)
    histograms.write_histograms(folder / layout.BOXES / "boxes.parquet", report.rejects, folder / layout.BOX_PLOTS)
    write_json(folder / layout.counts("filter"), report.as_dict())
    return report.as_dict()


filter_flow = stage_flow("filter", filter_)

if __name__ == "__main__":
    main(filter_flow)
