"""Stage acquire: annotations and images from the demo world, OpenImages, a bucket or a folder, into data/raw."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import layout
from flows.progress import Bars, silent
from flows.stage import Counts, main, stage_flow, write_json
from pbe.data import bucket, download, endpoint
from pbe.settings import Settings


def acquire(settings: Settings, folder: Path, bars: Bars = silent) -> Counts:
    """Bring data/raw to hold the images and annotations that `acquire` asks for; what is there and whole stays."""
    with source_endpoint(settings, folder, bars) as url:
        report = download.acquire(settings.acquire, settings.seed, folder / layout.RAW, url, bars("images"))
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


acquire_flow = stage_flow("acquire", acquire)

if __name__ == "__main__":
    main(acquire_flow)
