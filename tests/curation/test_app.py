"""The FiftyOne App: served until interrupted, with the patches that the installed versions need."""

import importlib.util
import inspect
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from pbe.curation.app import browse
from pbe.curation.fiftyone_export import DatasetWriter, DecisionFields, ImageRecord
from pbe.curation.verdicts import TaggedVerdict, pull, read_verdicts
from pbe.dataset.object_masks import pack_mask
from pbe.errors import UserError
from pbe.runtime.fiftyone_connection import connected_fiftyone
from pbe.runtime.mongod import running_mongod
from pbe.runtime.ports import free_port

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


def fetch(address: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=180) as response:
        return bytes(response.read())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a `.fiftyone` folder with a dataset `seen` of two images without boxes."""
    tmp_path = tmp_path_factory.mktemp("project")
    home = tmp_path / ".fiftyone"
    decisions = (DecisionFields(), DecisionFields("dark"))
    records = [
        ImageRecord(tmp_path / f"{n}.jpg", str(n), "train", 64, 64, (0.5, 10, 0, 0), (), decision)
        for n, decision in enumerate(decisions)
    ]
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        writer = DatasetWriter(fo, "seen")
        writer.add(records)
        writer.finish([], np.zeros((0, 1), np.float32))
    return home


def test_boxes_have_the_masks_of_their_objects(home: Path) -> None:
    shape = np.eye(8, 10, dtype=np.uint8)
    box = {"box_id": "b", "label": "Star", "x0": 10, "y0": 20, "x1": 20, "y1": 28, "width": 64, "height": 64}
    box |= dict.fromkeys(("is_occluded", "is_truncated", "is_group_of", "is_depiction"), False)
    boxes = [box | {"object_mask": pack_mask(shape)}, box | {"object_mask": None}]
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        writer = DatasetWriter(fo, "shapes")
        writer.add([ImageRecord(home / "0.jpg", "0", "train", 64, 64, (0.5, 10, 0, 0), boxes)])
        with_shape, without = fo.load_dataset("shapes").first().ground_truth.detections
        fo.delete_dataset("shapes")
    assert (with_shape.mask == shape.astype(bool)).all()
    assert without.mask is None


def tag_in_app(home: Path, port: int, image_id: str, tag: str) -> list[TaggedVerdict]:
    """Tag an image by the App's request, then pull verdicts, as `pbe verdicts pull` does while the App is open."""
    with running_mongod(home) as uri, connected_fiftyone(uri, home) as fo:
        sample = fo.load_dataset("seen").one(fo.ViewField("image_id") == image_id)
        request = {"dataset": "seen", "sample_ids": [sample.id], "changes": {tag: True}, "view": []}
        fetch(f"http://127.0.0.1:{port}/tag", json.dumps(request).encode())
        return pull(fo, "seen", home / "verdicts.csv")


def test_the_app_is_served_and_leaves_nothing_running(home: Path) -> None:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home), "seen", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{port}/datasets/seen"
        assert address in (line.strip() for line in server.stdout)  # FiftyOne may print a line about polling before it
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
    assert (home / "db/mongod.lock").read_text() == ""  # as mongod leaves it after a clean shutdown


def test_without_a_database_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no FiftyOne database; run: dvc repro curate"):
        browse(tmp_path, "seen", port=free_port())
    assert not list(tmp_path.iterdir())


def test_without_the_dataset_the_error_says_what_to_run(home: Path) -> None:
    with pytest.raises(UserError, match="no FiftyOne dataset named other; run: dvc repro curate"):
        browse(home, "other", port=free_port())


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of 127\.0\.0\.1 is in use.*; choose another"):
            browse(tmp_path, "seen", port=port)


def test_the_installed_versions_still_need_every_patch() -> None:
    spec = importlib.util.find_spec("fiftyone")
    assert spec is not None
    assert spec.origin is not None
    server = (Path(spec.origin).parent / "server/app.py").read_text()
    assert "@app.on_event(" in server, "remove _restore_on_event"
    assert not hasattr(Starlette, "on_event"), "remove _restore_on_event"
    assert "method=method" in server, "remove _accept_method_argument"
    assert "method" not in inspect.signature(FileResponse).parameters, "remove _accept_method_argument"
    assert "            path = pathlib.Path(*parts[1:])\n" in server, "remove _accept_path_objects"
    with pytest.raises(AttributeError):  # it calls a method of str
        StaticFiles(directory=Path(spec.origin).parent).lookup_path(Path("missing"))  # type: ignore[arg-type]
