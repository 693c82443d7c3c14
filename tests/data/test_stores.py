import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pbe.data.stores import FolderStore, HttpStore, LostError, S3Store, connect_s3, hash_file

BODY = b"the object's bytes" * 100
MD5 = hashlib.md5(BODY).hexdigest()


class Script(BaseHTTPRequestHandler):
    """Answers request number n with the server's n-th planned answer, and the last one from then on."""

    def do_GET(self):
        plan = self.server.plan
        answer = plan.pop(0) if len(plan) > 1 else plan[0]
        self.server.seen.append(self.headers.get("If-None-Match"))
        status = answer if isinstance(answer, int) else 200
        body = BODY if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{"0" * 32 if answer == "wrong" else MD5}"')
        self.end_headers()
        self.wfile.write(body[:7] if answer == "short" else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Script) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def stores(server, max_attempts=2):
    url = f"http://127.0.0.1:{server.server_port}"
    client = connect_s3(url, unsigned=True, workers=1, max_attempts=1)
    return [HttpStore(url, max_attempts), S3Store(client, "bucket", "prefix/", max_attempts)]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("stumble", ["short", "wrong"])
def test_a_broken_body_is_fetched_again(server, tmp_path, kind, stumble):
    server.plan = [stumble, "whole"]
    fetched = stores(server)[kind].fetch("key", tmp_path / "file")
    assert fetched == (len(BODY), MD5, False)
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.seen) == 2


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    ("answer", "outcome", "tries"),
    [(404, "missing", 1), (403, "denied", 1), ("wrong", "corrupt", 2), (418, "failed", 1)],
)
def test_a_loss_has_an_outcome_and_the_address(server, tmp_path, kind, answer, outcome, tries):
    server.plan = [answer]
    store = stores(server)[kind]
    with pytest.raises(LostError, match="key") as caught:
        store.fetch("key", tmp_path / "file")
    assert caught.value.outcome == outcome
    assert len(server.seen) == tries


@pytest.mark.parametrize("kind", [0, 1])
def test_what_is_known_is_not_sent_again(server, tmp_path, kind):
    server.plan = [304]
    fetched = stores(server)[kind].fetch("key", tmp_path / "file", known_md5=MD5)
    assert fetched.unchanged
    assert server.seen == [f'"{MD5}"']
    assert not (tmp_path / "file").exists()


def test_http_tries_again_after_a_server_error(server, tmp_path):
    server.plan = [503, 200]
    assert stores(server)[0].fetch("key", tmp_path / "file").md5 == MD5


def test_nobody_at_the_address_is_a_failure(server, tmp_path):
    for store in (
        HttpStore("http://127.0.0.1:9", 1),
        S3Store(connect_s3("http://127.0.0.1:9", True, 1, 1), "b", "", 1),
    ):
        with pytest.raises(LostError) as caught:
            store.fetch("key", tmp_path / "file")
        assert caught.value.outcome == "failed"


def test_without_credentials_the_user_is_told(server, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    client = connect_s3(f"http://127.0.0.1:{server.server_port}", unsigned=False, workers=1, max_attempts=1)
    with pytest.raises(ValueError, match=r"s3://mine/data/key: no AWS credentials found"):
        S3Store(client, "mine", "data/", 1).fetch("key", tmp_path / "file")


def test_folder_copies_and_compares(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    store = FolderStore(tmp_path)
    assert store.fetch("a", tmp_path / "copy") == (len(BODY), MD5, False)
    assert hash_file(tmp_path / "copy") == (len(BODY), MD5)
    assert store.fetch("a", tmp_path / "other", MD5).unchanged
    assert not (tmp_path / "other").exists()
    assert not store.fetch("a", tmp_path / "other", "0" * 32).unchanged
    with pytest.raises(LostError, match="no such file") as caught:
        store.fetch("b", tmp_path / "copy")
    assert caught.value.outcome == "missing"
