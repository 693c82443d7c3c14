"""Stage filter: the boxes that can teach, from data/raw into data/boxes; the rejects counted by reason."""

from pathlib import Path

from flows import layout
from flows.progress import Bars, silent
from flows.stage import Counts, main, stage_flow, write_json
from pbe.data import boxes, histograms
from pbe.settings import Settings


def filter_(settings: Settings, folder: Path, bars: Bars = silent) -> Counts:
    """Judge every annotated box by the rules of `filter`."""
    report = boxes.filter_boxes(folder / layout.RAW, folder / layout.BOXES, settings.filter, settings.seed)
    histograms.write_histograms(folder / layout.BOXES / "boxes.parquet", report.rejects, folder / layout.BOX_PLOTS)
    write_json(folder / layout.counts("filter"), report.as_dict())
    return report.as_dict()


filter_flow = stage_flow("filter", filter_)

if __name__ == "__main__":
    main(filter_flow)
