"""Stage acquire: annotations and images from the demo world, OpenImages, a bucket or own data, into data/raw."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.stage import Counts, main, stage_flow
from pbe import layout
from pbe.acquisition import download
from pbe.acquisition.importers.fiftyone_dataset import Database
from pbe.demo import bucket, endpoint
from pbe.runtime import mongod
from pbe.runtime.files import write_json
from pbe.settings import Settings
from pbe.types import ProgressBars, no_progress_bars

DEMO_FILES = (bucket.ATTRIBUTES_FILE,)
MAY_HOLD_DEMO_WORLD = ("s3", "folder")  # a copy of one


def acquire(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Fetch the images and annotations that section `acquire` selects into data/raw; complete files stay."""
    with source_endpoint(settings, folder, bars) as url, source_database(settings, folder) as database:
        report = download.acquire(
            settings.acquire,
            settings.seed,
            folder / layout.RAW,
            endpoint_url=url,
            required_files=DEMO_FILES if settings.acquire.source == "demo" else (),
            optional_files=DEMO_FILES if settings.acquire.source in MAY_HOLD_DEMO_WORLD else (),
            progress=bars("images"),
            database=database,
        )
    write_json(folder / layout.counts("acquire"), report.as_dict())
    return report.as_dict() | {"fetched": report.num_fetched, "present before": report.num_present}


@contextmanager
def source_endpoint(settings: Settings, folder: Path, bars: ProgressBars) -> Iterator[str | None]:
    """Draw the demo world and serve it over S3 during the block; yield the endpoint's URL, None for other sources."""
    if settings.acquire.source != "demo":
        yield None
        return
    world = folder / layout.WORLD_BUCKET
    bucket.write_bucket(world, settings.acquire.world, settings.seed, bars("world drawn"))
    with endpoint.serve_bucket(world) as url:
        yield url


@contextmanager
def source_database(settings: Settings, folder: Path) -> Iterator[Database | None]:
    """Yield FiftyOne's database during the block, the project's or FIFTYONE_DATABASE_URI's; None for other sources."""
    if settings.acquire.source != "fiftyone":
        yield None
        return
    home, given = folder / layout.FIFTYONE_HOME, os.environ.get("FIFTYONE_DATABASE_URI")
    with mongod.running_mongod(home, given) as uri:
        yield Database(uri, home, is_projects=given is None)


acquire_flow = stage_flow("acquire", acquire)

if __name__ == "__main__":
    main(acquire_flow)
