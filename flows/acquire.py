"""Stage acquire: annotations and images from the demo world, OpenImages, a bucket or own data, into data/raw."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import layout
from flows.progress import Bars, silent
from flows.stage import Counts, main, stage_flow, write_json
from pbe.data import mongo
from pbe.data.acquisition import download
from pbe.data.own.fiftyone import Database
from pbe.data.world import bucket, endpoint
from pbe.settings import Settings


def acquire(settings: Settings, folder: Path, bars: Bars = silent) -> Counts:
    """Bring data/raw to hold the images and annotations that `acquire` asks for; what is there and whole stays."""
    with source_endpoint(settings, folder, bars) as url, source_database(settings, folder) as database:
        report = download.acquire(settings.acquire, settings.seed, folder / layout.RAW, url, bars("images"), database)
    write_json(folder / layout.counts("acquire"), report.as_dict())
    return report.as_dict() | {"fetched": report.num_fetched, "already there": report.num_present}


@contextmanager
def source_endpoint(settings: Settings, folder: Path, bars: Bars) -> Iterator[str | None]:
    """The demo world, drawn and served over S3 for the block; None for every other source."""
    if settings.acquire.source != "demo":
        yield None
        return
    world = folder / layout.BUCKET
    bucket.write_bucket(world, settings.acquire.world, settings.seed, bars("world drawn"))
    with endpoint.serve_bucket(world) as url:
        yield url


@contextmanager
def source_database(settings: Settings, folder: Path) -> Iterator[Database | None]:
    """FiftyOne's MongoDB for the block, the project's own or FIFTYONE_DATABASE_URI's; None for every other source."""
    if settings.acquire.source != "fiftyone":
        yield None
        return
    home = folder / mongo.HOME
    with mongo.running_mongod(home, os.environ.get("FIFTYONE_DATABASE_URI")) as uri:
        yield Database(uri, home)


acquire_flow = stage_flow("acquire", acquire)

if __name__ == "__main__":
    main(acquire_flow)
