import datetime
import functools
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from moto.server import ThreadedMotoServer

from pbe.acquisition.stores import FolderStore, HttpStore, LostError, S3Connection, S3Store, hash_file
from pbe.acquisition.transfer import Patience, Transfers

BODY = b"the object's bytes" * 100
MD5 = hashlib.md5(BODY).hexdigest()
HASTY = Patience(stalled_s=1)


class Script(BaseHTTPRequestHandler):
    """Answers request number n with the server's n-th planned answer, and the last one from then on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        plan = self.server.plan
        answer = plan.pop(0) if len(plan) > 1 else plan[0]
        self.server.seen.append((self.path, dict(self.headers)))
        if answer == "cut":
            self.close_connection = True
            return
        status, more = answer if isinstance(answer, tuple) else (answer if isinstance(answer, int) else 200, {})
        body = BODY if status == 200 else more.pop("body", b"")
        headers = {"Content-Length": len(body), "ETag": f'"{"0" * 32 if answer == "wrong" else MD5}"'} | more
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.write(answer, body)

    def write(self, answer, body):
        if answer == "short":
            self.close_connection = True
            self.wfile.write(body[:7])
        elif answer in ("trickle", "still"):
            self.close_connection = True
            for byte in body[:40]:
                if answer == "trickle":
                    self.wfile.write(bytes([byte]))
                if self.server.over.wait(0.1):
                    break
        else:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # we hang up on it in the middle of a reply


@pytest.fixture(scope="module")
def running():
    with Server(("127.0.0.1", 0), Script) as server:
        server.over = threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setattr("pbe.acquisition.stores._FIRST_PAUSE_S", 0.01)
    running.seen = []
    return running


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """Credentials of an environment, and nothing of this machine's own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


def make_http(url, max_attempts=2):
    return HttpStore(url, max_attempts, Transfers(follow_redirects=True, patience=HASTY))


@functools.cache  # loading boto3's description of S3 takes a third of a second
def make_s3(url, max_attempts=2, unsigned=True):
    return S3Store(S3Connection(url, unsigned, HASTY), "bucket", "prefix/", max_attempts)


both = pytest.mark.parametrize("make", [make_http, make_s3])


@both
@pytest.mark.parametrize("stumble", ["short", "wrong", "cut", 500, 503, (429, {"Retry-After": 0})])
def test_what_may_pass_is_tried_again(server, tmp_path, make, stumble):
    server.plan = [stumble, "whole"]
    store = make(server.url)
    assert store.fetch("key", tmp_path / "file") == (len(BODY), MD5, False)
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.seen) == 2


@pytest.mark.parametrize("stall", ["still", "trickle"])
def test_a_connection_that_stands_still_or_trickles_is_given_up(server, tmp_path, stall):
    server.plan = [stall, "whole"]
    started = time.monotonic()
    assert make_s3(server.url).fetch("key", tmp_path / "file").md5 == MD5
    assert time.monotonic() - started < 4


@both
@pytest.mark.parametrize(
    ("answer", "outcome", "tries"),
    [(404, "missing", 1), (403, "denied", 1), ("wrong", "corrupt", 2), ("short", "corrupt", 2), (418, "failed", 1)],
)
def test_a_loss_has_an_outcome_and_the_address(server, tmp_path, make, answer, outcome, tries):
    server.plan = [answer]
    with pytest.raises(LostError, match="key") as caught:
        make(server.url).fetch("key", tmp_path / "file")
    assert caught.value.outcome == outcome
    assert len(server.seen) == tries
    assert not (tmp_path / "file").exists()


@both
def test_what_is_known_is_not_sent_again(server, tmp_path, make):
    server.plan = [304]
    store = make(server.url)
    assert store.fetch("key", tmp_path / "file", known_md5=MD5).unchanged
    assert store.read("key", MD5) == ((0, MD5, True), None)
    assert [headers["If-None-Match"] for _, headers in server.seen] == [f'"{MD5}"'] * 2
    assert not (tmp_path / "file").exists()


@both
def test_a_condition_is_for_one_request_alone(server, make):
    server.plan = [304, "whole"]
    store = make(server.url)
    assert store.read("key", MD5)[0].unchanged
    assert store.read("key")[1] == BODY
    assert ["If-None-Match" in headers for _, headers in server.seen] == [True, False]


@both
def test_an_object_can_be_read_without_a_file(server, make):
    server.plan = ["short", "whole"]
    assert make(server.url).read("key") == ((len(BODY), MD5, False), BODY)


def test_a_large_object_goes_to_its_file_as_it_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr("pbe.acquisition.transfer._HELD_BYTES", 1000)
    monkeypatch.setattr("pbe.acquisition.stores.MOST_READ_BYTES", 1000)
    server.plan = ["wrong", "whole"]
    store = make_http(server.url)
    assert store.fetch("key", tmp_path / "file") == (len(BODY), MD5, False)
    assert (tmp_path / "file").read_bytes() == BODY
    with pytest.raises(LostError, match="key: more than 1000 bytes"):
        store.read("key")
    (tmp_path / "key").write_bytes(BODY)
    with pytest.raises(LostError, match="key: more than 1000 bytes"):
        FolderStore(tmp_path).read("key")


def test_a_full_disk_is_no_loss_of_the_object(server, monkeypatch):
    monkeypatch.setattr("pbe.acquisition.transfer._HELD_BYTES", 1000)
    server.plan = ["whole"]
    with open("/dev/full", "wb") as full, pytest.raises(OSError, match="No space left"):
        make_http(server.url).fetch("key", type("Full", (), {"open": lambda self, mode: full})())
    assert len(server.seen) == 1


def test_the_wait_that_the_server_asks_for_is_kept(server):
    server.plan = [(503, {"Retry-After": 1}), "whole"]
    started = time.monotonic()
    make_http(server.url).read("key")
    assert 1 <= time.monotonic() - started < 3


def test_a_burst_of_refusals_loses_nothing(server):
    server.plan = [503, 429] * 20 + ["whole"]
    store = make_s3(server.url, max_attempts=6)
    threads = [threading.Thread(target=lambda: [store.read("key") for _ in range(4)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 32 + 40


def test_nobody_at_the_address_is_a_failure(tmp_path):
    for make in (make_http, make_s3):
        with pytest.raises(LostError, match="key: Failed to connect") as caught:
            make("http://127.0.0.1:9", 1).fetch("key", tmp_path / "file")
        assert caught.value.outcome == "failed"


def test_http_follows_redirects(server):
    server.plan = [(302, {"Location": "/elsewhere", "body": b"moved"}), "whole"]
    assert make_http(server.url).read("key")[1] == BODY
    assert [path for path, _ in server.seen] == ["/key", "/elsewhere"]


def test_a_bucket_in_another_region_is_found_there(server, keys):
    elsewhere = (400, {"x-amz-bucket-region": "eu-central-1", "body": b"<Code>AuthorizationHeaderMalformed</Code>"})
    server.plan = [elsewhere, "whole"]
    store = make_s3(server.url, unsigned=False)
    assert store.read("key")[1] == store.read("key")[1] == BODY
    regions = [headers["Authorization"].split("/")[2] for _, headers in server.seen]
    assert regions == ["us-east-1", "eu-central-1", "eu-central-1"]
    server.plan = [(301, {"x-amz-bucket-region": "ap-south-2"})]
    with pytest.raises(LostError, match=r"s3://bucket/prefix/key: HTTP 301; the bucket is in ap-south-2"):
        store.read("key")


def test_buckets_of_aws_have_their_region_in_the_url():
    connection = S3Connection(None, unsigned=True)
    assert connection.place("open-images-dataset")[0] == "https://open-images-dataset.s3.amazonaws.com/"
    assert connection.place("mine", "eu-central-1")[0] == "https://mine.s3.eu-central-1.amazonaws.com/"
    assert connection.place("with.dots", "eu-central-1")[0] == "https://s3.eu-central-1.amazonaws.com/with.dots/"


def test_credentials_that_run_out_are_renewed(server, keys):
    def renew():
        issued.append(f"token{len(issued)}")
        return {"access_key": "a", "secret_key": "s", "token": issued[-1], "expiry_time": soon.isoformat()}

    issued = []
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    connection = S3Connection(server.url, unsigned=False)
    credentials = RefreshableCredentials.create_from_metadata(renew(), renew, "test")
    keys.setattr(connection, "credentials", lambda: credentials)
    store = S3Store(connection, "bucket", "", 2)
    server.plan = [(400, {"body": b"<Error><Code>ExpiredToken</Code></Error>"}), "whole"]
    assert store.read("a + b/key")[1] == BODY
    assert server.seen[0][0] == "/bucket/a%20%2B%20b/key"
    assert [headers["X-Amz-Security-Token"] for _, headers in server.seen] == ["token1", "token2"]


def test_without_credentials_the_user_is_told(server, keys):
    keys.delenv("AWS_ACCESS_KEY_ID")
    connection = S3Connection(server.url, unsigned=False)
    with pytest.raises(ValueError, match=r"s3://mine/data: no AWS credentials found"):
        S3Store(connection, "mine", "data/", 1)


def test_a_bucket_that_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"s3://no bucket: .*[Ii]nvalid bucket name"):
        S3Store(S3Connection(None, unsigned=True), "no bucket", "", 1)


def test_folder_copies_and_compares(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    store = FolderStore(tmp_path)
    assert store.fetch("a", tmp_path / "copy") == (len(BODY), MD5, False)
    assert hash_file(tmp_path / "copy") == (len(BODY), MD5)
    assert store.fetch("a", tmp_path / "other", MD5).unchanged
    assert not (tmp_path / "other").exists()
    assert not store.fetch("a", tmp_path / "other", "0" * 32).unchanged
    assert store.read("a") == ((len(BODY), MD5, False), BODY)
    assert store.read("a", MD5) == ((len(BODY), MD5, True), None)
    with pytest.raises(LostError, match="no such file") as caught:
        store.fetch("b", tmp_path / "copy")
    assert caught.value.outcome == "missing"


def test_signatures_and_policies_are_those_of_aws(keys):
    """Against moto with its checks of both turned on."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    iam, s3 = (boto3.client(name, endpoint_url=url, region_name="us-east-1") for name in ("iam", "s3"))
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
        store = S3Store(S3Connection(url, unsigned=False), "private", "", 1)
        assert store.read("open/a +~(ü).jpg", "0" * 32)[1] == BODY
        with pytest.raises(LostError, match=r"shut/b\.jpg: HTTP 403 AccessDenied"):
            store.read("shut/b.jpg")
        keys.setenv("AWS_SECRET_ACCESS_KEY", "a guess")
        with pytest.raises(LostError, match="HTTP 403 SignatureDoesNotMatch"):
            S3Store(S3Connection(url, unsigned=False), "private", "", 1).read("open/a +~(ü).jpg")
    finally:
        server.stop()
