"""Buckets and HTTP servers: what is retried, what is checked, and where a bucket is found."""

import datetime
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from moto.server import ThreadedMotoServer

from pbe.acquisition.remote_stores import HttpStore, S3Store, Timeouts
from pbe.acquisition.stores import LostError
from pbe.errors import UserError

BODY = b"the object's bytes" * 100
MD5 = hashlib.md5(BODY).hexdigest()
SHORT = Timeouts(stalled_s=1, read_s=2)

Answer = str | int | tuple[int, dict[str, Any]]


class Script(BaseHTTPRequestHandler):
    """Gives obstore's request number n the server's n-th planned answer, and the last one to all that follow.

    urllib, which asks for headers, gets the answer that obstore got before.
    """

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        server = self.server
        if not self.headers["User-Agent"].startswith("Python-urllib"):
            server.answer = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
            server.seen.append((self.path, {name.title(): value for name, value in self.headers.items()}))
        answer = server.answer
        if answer == "cut":
            self.close_connection = True
            return
        status, more = answer if isinstance(answer, tuple) else (answer if isinstance(answer, int) else 200, {})
        body = BODY if status == 200 else more.get("body", b"")
        headers = {"Content-Length": len(body), "ETag": f'"{"0" * 32 if answer == "wrong" else MD5}"', **more}
        self.send_response(status)
        for name, value in headers.items():
            if name != "body":
                self.send_header(name, str(value))
        self.end_headers()
        self.write(answer, body)

    def write(self, answer: Answer, body: bytes) -> None:
        if answer == "short":
            self.close_connection = True
            self.wfile.write(body[:7])
        elif answer in ("trickling", "stalled"):
            self.close_connection = True
            for byte in body[:40]:
                if answer == "trickling":
                    self.wfile.write(bytes([byte]))
                if self.server.stopped.wait(0.1):
                    break
        else:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Script)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.stopped = threading.Event()
        self.plan: list[Answer] = ["complete"]
        self.answer: Answer = "complete"
        self.seen: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client closes the connection in the middle of a reply


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("pbe.acquisition.remote_stores._FIRST_PAUSE_S", 0.01)
    running.seen = []
    return running


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Credentials in the environment, and none of this machine's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


def make_http(url: str, max_attempts: int = 2) -> HttpStore:
    return HttpStore(url, max_attempts, SHORT)


@functools.cache  # loading boto3's description of S3 takes a third of a second
def make_s3(url: str, max_attempts: int = 2, unsigned: bool = True) -> S3Store:
    return S3Store("bucket", "prefix/", max_attempts, url, unsigned, SHORT)


MakeStore = Callable[..., HttpStore | S3Store]
both = pytest.mark.parametrize("make", [make_http, make_s3])


@both
@pytest.mark.parametrize("fault", ["short", "wrong", "cut", 408, 500, 503, (429, {"Retry-After": 0})])
def test_a_transient_fault_is_retried(server: Server, tmp_path: Path, make: MakeStore, fault: Answer) -> None:
    server.plan = [fault, "complete"]
    assert make(server.url).fetch("key", tmp_path / "file") == (len(BODY), MD5, False)
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.seen) == 2


@both
@pytest.mark.parametrize("fault", ["stalled", "trickling"])
def test_a_stalled_or_trickling_reply_is_abandoned(server: Server, make: MakeStore, fault: Answer) -> None:
    server.plan = [fault, "complete"]
    assert make(server.url).read("key")[0].md5 == MD5
    assert len(server.seen) == 2


@both
@pytest.mark.parametrize(
    ("answer", "outcome", "attempts"),
    [
        (404, "missing", 1),
        (410, "missing", 1),
        (401, "denied", 1),
        (403, "denied", 1),
        ("wrong", "corrupt", 2),
        ("short", "corrupt", 2),
        ("stalled", "failed", 2),
        (418, "failed", 1),
        (304, "failed", 1),
    ],
)
def test_a_loss_has_an_outcome_and_the_address(
    server: Server, tmp_path: Path, make: MakeStore, answer: Answer, outcome: str, attempts: int
) -> None:
    server.plan = [answer]
    store = make(server.url)
    with pytest.raises(LostError, match="key: ") as caught:
        store.fetch("key", tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert caught.value.outcome == outcome
    assert len(server.seen) == attempts
    assert not (tmp_path / "file").exists()


@both
def test_an_object_with_the_known_md5_is_not_transferred(server: Server, tmp_path: Path, make: MakeStore) -> None:
    server.plan = [304]
    store = make(server.url)
    assert store.fetch("key", tmp_path / "file", known_md5=MD5).unchanged
    assert store.read("key", MD5) == ((0, MD5, True), None)
    assert [headers["If-None-Match"] for _, headers in server.seen] == [f'"{MD5}"'] * 2
    assert not (tmp_path / "file").exists()


@both
def test_the_condition_is_not_kept_for_the_next_request(server: Server, make: MakeStore) -> None:
    server.plan = [304, "complete"]
    store = make(server.url)
    assert store.read("key", MD5)[0].unchanged
    assert store.read("key")[1] == BODY
    assert ["If-None-Match" in headers for _, headers in server.seen] == [True, False]


@both
def test_an_object_over_the_limit_is_written_to_a_file_but_not_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: MakeStore
) -> None:
    monkeypatch.setattr("pbe.acquisition.remote_stores.MAX_READ_BYTES", 1000)
    server.plan = ["wrong", "complete"]
    store = make(server.url)
    assert store.fetch("key", tmp_path / "file") == (len(BODY), MD5, False)
    assert (tmp_path / "file").read_bytes() == BODY
    with pytest.raises(LostError, match="key: larger than 1000 bytes"):
        store.read("key")


def test_a_full_disk_is_not_a_lost_object(server: Server) -> None:
    server.plan = ["complete"]
    with pytest.raises(OSError, match="No space left"):
        make_http(server.url).fetch("key", Path("/dev/full"))
    assert len(server.seen) == 1


@both
@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_waits_as_long_as_the_server_asks(
    server: Server, monkeypatch: pytest.MonkeyPatch, make: MakeStore, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("pbe.acquisition.remote_stores.time.sleep", waits.append)
    server.plan = [(status, {"Retry-After": 7}), (status, {"Retry-After": 99}), "complete"]
    make(server.url, 3).read("key")
    assert waits == [7, 20]


def test_a_burst_of_refusals_loses_no_object(server: Server) -> None:
    server.plan = [*[503, 429] * 20, "complete"]
    store = make_s3(server.url, max_attempts=41)  # one request may be refused 40 times
    threads = [threading.Thread(target=lambda: [store.read("key") for _ in range(4)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 32 + 40


def test_an_unreachable_server_is_a_failure(tmp_path: Path) -> None:
    for store in (make_http("http://127.0.0.1:9", 1), make_s3("http://127.0.0.1:9", 1)):
        with pytest.raises(LostError, match=r"key: HTTP error: error sending request$") as caught:
            store.fetch("key", tmp_path / "file")
        assert caught.value.outcome == "failed"


@pytest.mark.parametrize("path", ["/some/folder", "/some/folder/"])
def test_keys_are_below_the_url(server: Server, path: str) -> None:
    server.plan = ["complete"]
    make_http(server.url + path).read("v6/a + b.csv")
    assert server.seen[0][0] == "/some/folder/v6/a%20+%20b.csv"


def test_http_follows_redirects(server: Server) -> None:
    server.plan = [(302, {"Location": "/elsewhere", "body": b"moved"}), "complete"]
    assert make_http(server.url).read("key")[1] == BODY
    assert [path for path, _ in server.seen] == ["/key", "/elsewhere"]


def test_an_address_that_is_no_url_is_named() -> None:
    with pytest.raises(UserError, match=r"nonsense/: not a URL"):
        HttpStore("nonsense", 1)
    with pytest.raises(UserError, match=r"acquire\.endpoint_url: Invalid endpoint: nonsense"):
        S3Store("bucket", "", 1, "nonsense", unsigned=True)


WRONG_REGION = {"x-amz-bucket-region": "eu-central-1"}
MOVED = [
    (400, WRONG_REGION | {"body": b"<Code>AuthorizationHeaderMalformed</Code>"}),
    (301, WRONG_REGION | {"body": b"<Code>PermanentRedirect</Code>"}),
    (403, WRONG_REGION),  # a redirect to another host: obstore follows it without the signature
]


@pytest.mark.parametrize("moved", MOVED, ids=["400", "301", "403"])
def test_a_bucket_in_another_region_is_found_there(server: Server, keys: pytest.MonkeyPatch, moved: Answer) -> None:
    server.plan = [moved, "complete"]
    store = S3Store("bucket", "prefix/", 1, server.url, timeouts=SHORT)
    assert store.read("key")[1] == store.read("key")[1] == BODY
    regions = [headers["Authorization"].split("/")[2] for _, headers in server.seen]
    assert regions == ["us-east-1", "eu-central-1", "eu-central-1"]


def test_a_bucket_that_is_not_where_the_server_says_is_a_failure(server: Server, keys: pytest.MonkeyPatch) -> None:
    server.plan = [(301, {"x-amz-bucket-region": "ap-south-2"})]
    with pytest.raises(LostError, match=r"s3://bucket/prefix/key: HTTP 301"):
        S3Store("bucket", "prefix/", 1, server.url, timeouts=SHORT).read("key")
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("bucket", "region", "url"),
    [
        ("open-images-dataset", None, "https://open-images-dataset.s3.amazonaws.com"),
        ("mine", "eu-central-1", "https://mine.s3.eu-central-1.amazonaws.com"),
        ("with.dots", "eu-central-1", "https://s3.eu-central-1.amazonaws.com/with.dots"),
    ],
)
def test_a_bucket_of_aws_has_its_region_in_the_url(bucket: str, region: str | None, url: str) -> None:
    assert S3Store(bucket, "", 1, unsigned=True).find_bucket(region)[0] == url


def test_the_team_s_endpoint_does_not_move_a_public_bucket(keys: pytest.MonkeyPatch) -> None:
    keys.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    public = S3Store("open-images-dataset", "", 1, unsigned=True)
    assert public.find_bucket(None)[0] == "https://open-images-dataset.s3.amazonaws.com"
    assert S3Store("with.dots", "", 1).find_bucket(None)[0] == "http://127.0.0.1:9000/with.dots"


def test_expired_credentials_are_renewed(server: Server, keys: pytest.MonkeyPatch) -> None:
    def renew() -> dict[str, str]:
        issued.append(f"token{len(issued)}")
        return {"access_key": "a", "secret_key": "s", "token": issued[-1], "expiry_time": soon.isoformat()}

    issued: list[str] = []
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    credentials = RefreshableCredentials.create_from_metadata(renew(), renew, "test")
    keys.setattr("boto3.session.Session.get_credentials", lambda session: credentials)
    store = S3Store("bucket", "", 2, server.url, timeouts=SHORT)
    server.plan = ["complete", (400, {"body": b"<Error><Code>ExpiredToken</Code></Error>"}), "complete"]
    assert store.read("a + b/key")[1] == store.read("a + b/key")[1] == BODY
    assert server.seen[0][0] == "/bucket/a%20%2B%20b/key"
    tokens = [headers["X-Amz-Security-Token"] for _, headers in server.seen]
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize(
    "encryption",
    [{"x-amz-server-side-encryption": "aws:kms"}, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}],
)
def test_the_etag_of_an_encrypted_object_is_not_compared(server: Server, encryption: dict[str, str]) -> None:
    server.plan = [(200, {"ETag": f'"{"0" * 32}"', **encryption})]
    assert make_s3(server.url).read("key")[1] == BODY
    server.plan = [(200, {"ETag": f'"{"0" * 32}"', "x-amz-server-side-encryption": "AES256"})]
    with pytest.raises(LostError, match="its MD5 is"):
        make_s3(server.url).read("key")


def test_missing_credentials_are_reported(server: Server, keys: pytest.MonkeyPatch) -> None:
    keys.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError, match=r"s3://mine/data/: no AWS credentials found"):
        S3Store("mine", "data/", 1, server.url)


def test_an_invalid_bucket_name_is_reported() -> None:
    with pytest.raises(UserError, match=r"s3://no bucket/: .*[Ii]nvalid bucket name"):
        S3Store("no bucket", "", 1, unsigned=True)


def test_signatures_and_policies_are_those_of_aws(keys: pytest.MonkeyPatch) -> None:
    """Against moto, with authentication and policies enabled."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    iam: Any = boto3.client("iam", endpoint_url=url, region_name="us-east-1")
    s3: Any = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    iam.create_user(UserName="reader")
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::private/open/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    issued = iam.create_access_key(UserName="reader")["AccessKey"]
    s3.create_bucket(Bucket="private")
    for key in ("open/a +~(ü).jpg", "shut/b.jpg"):
        s3.put_object(Bucket="private", Key=key, Body=BODY)
    keys.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    keys.setenv("AWS_ACCESS_KEY_ID", issued["AccessKeyId"])
    keys.setenv("AWS_SECRET_ACCESS_KEY", issued["SecretAccessKey"])
    try:
        store = S3Store("private", "", 1, url)
        assert store.read("open/a +~(ü).jpg", "0" * 32)[1] == BODY
        with pytest.raises(LostError, match=r"shut/b\.jpg: HTTP 403 AccessDenied"):
            store.read("shut/b.jpg")
        keys.setenv("AWS_SECRET_ACCESS_KEY", "a guess")
        with pytest.raises(LostError, match="HTTP 403 SignatureDoesNotMatch"):
            S3Store("private", "", 1, url).read("open/a +~(ü).jpg")
    finally:
        server.stop()
