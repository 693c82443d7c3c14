"""The page on the service's application: the login, uploads, and the end of the process."""

import contextlib
import time
from pathlib import Path

import httpx
import pytest

from tests.serving.page.conftest import RunningPage, running_page

ALICE = "alice-has-a-long-token"
UPLOAD = "/gradio_api/upload"


def upload(client: httpx.Client, data: bytes = b"picture") -> httpx.Response:
    return client.post(UPLOAD, files={"files": ("name.png", data)})


def test_service_and_page_share_an_address(running: RunningPage) -> None:
    with httpx.Client(base_url=running.url) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        assert client.get("/healthz").status_code == 200
        page = client.get("/").text
    assert "Paint by Example" in page
    for other in ("fonts.googleapis", "fonts.gstatic", "cdn.jsdelivr", "cdnjs"):
        assert other not in page


def test_an_upload_cannot_be_fetched(running: RunningPage) -> None:
    with httpx.Client(base_url=running.url) as client:
        (path,) = upload(client).json()
        assert Path(path).is_relative_to(running.uploads)
        assert client.get(f"/gradio_api/file={path}").status_code == 403
    Path(path).unlink()


def test_a_large_upload_is_refused(running: RunningPage) -> None:
    with httpx.Client(base_url=running.url) as client:
        assert upload(client, bytes(running.page.settings.max_body_bytes)).status_code == 413


@pytest.mark.parametrize("path", ["page/sources/short", "page/variants/../../etc/passwd", "page/masks/" + 22 * "x"])
def test_an_unknown_picture_is_not_found(running: RunningPage, path: str) -> None:
    assert httpx.get(f"{running.url}/{path}").status_code in (404, 400, 422)


def test_where_there_are_tokens_a_visitor_logs_in(model_folder: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"alice:{ALICE}\n")
    with running_page(model_folder, tokens_file=tokens) as running, httpx.Client(base_url=running.url) as client:
        assert upload(client).status_code == 401
        assert client.post("/login", data={"username": "alice", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "alice", "password": ALICE}).status_code == 200
        assert upload(client).status_code == 200


def test_open_tabs_do_not_hold_the_server_back(model_folder: Path) -> None:
    with running_page(model_folder) as running:
        folder = running.uploads
        with httpx.Client(base_url=running.url) as client:
            upload(client)
            with client.stream("GET", "/gradio_api/heartbeat/somebody") as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data")
                ended_at = time.monotonic()
                running.server.handle_exit(15, None)
                with contextlib.suppress(httpx.RemoteProtocolError):
                    assert [line for line in lines if line and not line.startswith("data")] == []
    assert time.monotonic() - ended_at < 10
    assert not folder.exists()
