"""Push a project's outputs to S3, pull them into a new clone, and check that everything works there without a run.

    python -m benchmarks.pulled_clone

A small project runs every stage, `dvc push`es to an S3 store on 127.0.0.1 (moto), and is cloned. In the clone, after
`dvc pull`, `dvc status`, `dvc repro` and `flows.pipeline` must find every stage up to date; `pbe browse` must write the
dataset and serve it; `pbe edit` must paint, with the model that was pulled where the gate has made it champion. Exits
with 1 when one of them fails.
"""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import polars as pl
from moto.server import ThreadedMotoServer

from benchmarks.small_project import SmallProject, make_small_project
from pbe.runtime.ports import free_port

BUCKET = "outputs"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def main() -> None:
    """Run the check, and print a line for each step."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--project", type=Path, help="a small project of benchmarks.interruptions, to save its run")
    options = parser.parse_args()
    server = ThreadedMotoServer("127.0.0.1", free_port())
    server.start()
    with tempfile.TemporaryDirectory() as scratch:
        first = SmallProject(options.project) if options.project else make_small_project(Path(scratch) / "first")
        try:
            check(first, Path(scratch) / "clone", "http://{}:{}".format(*server.get_host_and_port()))
        finally:
            server.stop()


def check(first: SmallProject, folder: Path, endpoint: str) -> None:
    """Run a project, push it, pull it into a clone, and check the clone."""
    import boto3

    boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    ).create_bucket(Bucket=BUCKET)
    first.env |= KEYS
    timed("the pipeline", lambda: first.run("dvc", "repro"))
    first.run("dvc", "remote", "add", "--force", "--default", "store", f"s3://{BUCKET}/dvc")
    first.run("dvc", "remote", "modify", "store", "endpointurl", endpoint)
    first.run("git", "add", "-A")
    first.run("git", "commit", "--allow-empty", "-qm", "run")
    timed("dvc push", lambda: first.run("dvc", "push", "dvc.yaml"))
    first.run("git", "clone", "-q", str(first.folder), str(folder))
    clone = SmallProject(folder, **KEYS)
    timed("dvc pull", lambda: clone.run("dvc", "pull", "dvc.yaml"))  # without projects/photo
    expect("dvc status", clone.run("dvc", "status", "dvc.yaml").stdout, "Data and pipelines are up to date.")
    expect("dvc repro", clone.run("dvc", "repro").stdout, "Data and pipelines are up to date.")
    pipeline = clone.run("python", "-m", "flows.pipeline").stdout
    expect("flows.pipeline", pipeline, "every stage is up to date")
    expect("flows.pipeline names the registry's champion", pipeline, "champion: none in this registry")
    check_browse(clone)
    check_edit(clone)
    expect("nothing is left running", str(first.processes() + clone.processes()), "[]")


def check_browse(clone: SmallProject) -> None:
    """`pbe browse` writes the dataset with the decisions of data/curated, and serves it."""
    process = clone.start("pbe", "browse", "--port", str(free_port()))
    assert process.stdout is not None
    lines, address = [process.stdout.readline()], None
    while lines[-1] and not (address := re.match(r"http://\S+", lines[-1])):
        lines.append(process.stdout.readline())
    status = urllib.request.urlopen(address[0], timeout=60).status if address else 0
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    expect("pbe browse writes the dataset", lines[0], "writing the dataset of data/curated to FiftyOne")
    expect("pbe browse serves it", f"{status} {lines} {errors}", "200 ")
    images = pl.read_parquet(clone.folder / "data/curated/images.parquet")
    counted = clone.run("python", "-c", COUNT).stdout
    expect(
        "the dataset has every image", counted, f"{images.height} images, {images.filter(verdict='keep').height} kept"
    )


COUNT = """
from pathlib import Path
from pbe.layout import FIFTYONE_DATASET, FIFTYONE_HOME
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
with running_mongod(FIFTYONE_HOME) as uri, connected_fiftyone(uri, FIFTYONE_HOME) as fo:
    dataset = fo.load_dataset(FIFTYONE_DATASET)
    print(f"{len(dataset)} images, {len(dataset.match_tags('keep'))} kept")
"""


def check_edit(clone: SmallProject) -> None:
    """`pbe edit` paints a case of the bench with the pulled model."""
    bench = clone.folder / "data/bench"
    source, mask, exemplar = (str(min(bench.glob(f"{kind}_*/*.png"))) for kind in ("GT", "Mask_bbox", "Ref"))
    out = clone.folder / "edited.png"
    ended = clone.run("pbe", "edit", "--source", source, "--mask", mask, "--exemplar", exemplar, "--out", str(out))
    promoted = json.loads((clone.folder / "reports/registered.json").read_text())["promoted"]
    used = "the champion that was pulled (" if promoted else "there is no registered champion"
    expect("pbe edit names its model", ended.stdout + ended.stderr, used)
    expect("pbe edit paints", str(out.is_file()), "True")


def timed(name: str, run: Callable[[], object]) -> None:
    """Call `run`, and print how long it took."""
    began = time.monotonic()
    run()
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def expect(what: str, found: str, text: str) -> None:
    """Print that a check passed; exit with 1 and what was found when `text` is not in it."""
    if text not in found:
        sys.exit(f"FAILED: {what}: expected {text!r} in:\n{found}")
    print(f"ok: {what}", flush=True)


if __name__ == "__main__":
    main()
