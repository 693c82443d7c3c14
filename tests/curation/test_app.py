import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from pbe.curation.app import browse
from pbe.curation.fiftyone_catalogue import Catalogue, Mark, Record
from pbe.curation.verdicts import TaggedVerdict, pull, read_verdicts
from pbe.dataset.object_masks import pack_mask
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod

pytestmark = [  # FiftyOne's imports
    pytest.mark.filterwarnings("ignore:Passing a class to strawberry:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No uuidRepresentation is specified:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
]

SERVER = """
import sys
from pathlib import Path
from pbe.curation.app import browse
browse(Path(sys.argv[1]), sys.argv[2], port=int(sys.argv[3]), on_ready=lambda address: print(address, flush=True))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fetch(address: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=180) as response:
        return bytes(response.read())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.fiftyone` folder with a dataset `seen` of two images without boxes."""
    tmp_path = tmp_path_factory.mktemp("project")
    home = tmp_path / ".fiftyone"
    marks = (Mark(), Mark("dark"))
    records = [
        Record(tmp_path / f"{n}.jpg", str(n), "train", 64, 64, (0.5, 10, 0, 0), (), m) for n, m in enumerate(marks)
    ]
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        catalogue = Catalogue(fo, "seen")
        catalogue.add(records)
        catalogue.finish([], np.zeros((0, 1), np.float32))
    return home


def test_the_app_is_given_the_objects_shapes(home: Path) -> None:
    shape = np.eye(8, 10, dtype=np.uint8)
    box = {"box_id": "b", "label": "Star", "x0": 10, "y0": 20, "x1": 20, "y1": 28, "width": 64, "height": 64}
    box |= dict.fromkeys(("is_occluded", "is_truncated", "is_group_of", "is_depiction"), False)
    boxes = [box | {"object_mask": pack_mask(shape)}, box | {"object_mask": None}]
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        catalogue = Catalogue(fo, "shapes")
        catalogue.add([Record(home / "0.jpg", "0", "train", 64, 64, (0.5, 10, 0, 0), boxes)])
        with_shape, without = fo.load_dataset("shapes").first().ground_truth.detections
        fo.delete_dataset("shapes")
    assert (with_shape.mask == shape.astype(bool)).all()
    assert without.mask is None


def tag_in_app(home: Path, port: int, image_id: str, tag: str) -> list[TaggedVerdict]:
    """Tag an image by the App's own request, then pull verdicts, as `pbe verdicts pull` does beside an open App."""
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        sample = fo.load_dataset("seen").one(fo.ViewField("image_id") == image_id)
        request = {"dataset": "seen", "sample_ids": [sample.id], "changes": {tag: True}, "view": []}
        fetch(f"http://127.0.0.1:{port}/tag", json.dumps(request).encode())
        return pull(fo, "seen", home / "verdicts.csv")


def test_serves_the_app_and_leaves_nothing_running(home: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home), "seen", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{port}/datasets/seen"
        assert address in (line.strip() for line in server.stdout)  # FiftyOne may tell of its polling first
        assert b"<title>FiftyOne</title>" in fetch(address)
        query = {"query": "query { estimatedDatasetCount, doNotTrack }"}
        answer = json.loads(fetch(f"http://127.0.0.1:{port}/graphql", json.dumps(query).encode()))
        assert answer["data"] == {"estimatedDatasetCount": 1, "doNotTrack": True}
        assert (home / "mongod.json").exists()
        assert tag_in_app(home, port, "0", "reject") == [("image", "train", "0", "reject")]
        assert read_verdicts(home / "verdicts.csv") == {("image", "train", "0"): "reject"}
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(180)
        server.stdout.close() if server.stdout else None
    assert code == 0
    assert not (home / "mongod.json").exists()
    assert (home / "db/mongod.lock").read_text() == ""  # what mongod leaves when it was stopped cleanly


def test_a_project_never_curated_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no FiftyOne database; run: dvc repro curate"):
        browse(tmp_path, "seen", port=free_port())
    assert not list(tmp_path.iterdir())


def test_an_unknown_dataset_says_what_to_run(home: Path) -> None:
    with pytest.raises(ValueError, match="no FiftyOne dataset named other; run: dvc repro curate"):
        browse(home, "other", port=free_port())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port {port} on 127\.0\.0\.1 is taken"):
            browse(tmp_path, "seen", port=port)
