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


def acquire(settings: Settings, folder: Path, bars: ProgressBars = no_progress_bars) -> Counts:
    """Bring data/raw to hold the images and annotations that `acquire` asks for; what is there and whole stays."""
    with source_endpoint(settings, folder, bars) as url, source_database(settings, folder) as database:
        report = download.acquire(settings.acquire, settings.seed, folder / layout.RAW, url, bars("images"), database)
    write_json(folder / layout.counts("acquire"), report.as_dict())
    return report.as_dict() | {"fetched": report.num_fetched, "already there": report.num_present}


@contextmanager
def source_endpoint(settings: Settings, folder: Path, bars: ProgressBars) -> Iterator[str | None]:
    """The demo world, drawn and served over S3 for the block; None for every other source."""
    if settings.acquire.source != "demo":
        yield None
        return
    world = folder / layout.WORLD_BUCKET
    bucket.write_bucket(world, settings.acquire.world, settings.seed, bars("world drawn"))
    with endpoint.serve_bucket(world) as url:
        yield url


@contextmanager
def source_database(settings: Settings, folder: Path) -> Iterator[Database | None]:
    """FiftyOne's MongoDB for the block, the project's own or FIFTYONE_DATABASE_URI's; None for every other source."""
    if settings.acquire.source != "fiftyone":
        yield None
        return
    home = folder / layout.FIFTYONE_HOME
    with mongod.running_mongod(home, os.environ.get("FIFTYONE_DATABASE_URI")) as uri:
        yield Database(uri, home)


acquire_flow = stage_flow("acquire", acquire)

if __name__ == "__main__":
    main(acquire_flow)
