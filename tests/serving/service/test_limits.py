"""Hostile clients: large, slow, many or foreign. Each gets a 4xx with a reason, or nothing; the service works on."""

import contextlib
import io
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from pbe.serving.service import http_limits
from pbe.serving.service.settings import ServiceSettings
from tests.support.running_service import (
    EDITS,
    RunningService,
    SmallEdit,
    encoded,
    png,
    post_form,
    running_service,
    wait_for,
)
from tests.support.service_edits import gated

BODY_BYTES, TIMEOUT_S, OPEN_REQUESTS = 200_000, 1.0, 6
SMALL = SmallEdit()


@pytest.fixture(scope="module")
def strict(model_folder: Path) -> Iterator[RunningService]:
    """A service without tokens, with low limits."""
    with running_service(
        model_folder,
        max_queue=4,
        max_body_bytes=BODY_BYTES,
        max_received_bytes=BODY_BYTES,
        max_pixels=10_000,
        max_answer_pixels=2 * 40 * 48,
        max_open_requests=OPEN_REQUESTS,
        max_header_bytes=4096,
        max_headers=30,
        body_timeout_s=TIMEOUT_S,
        header_timeout_s=TIMEOUT_S,
        edit_timeout_s=30,
    ) as running:
        yield running


@pytest.fixture
def client(strict: RunningService) -> Iterator[httpx.Client]:
    """A client; the service still paints for it when the test has ended."""
    with strict.client(None) as made:
        yield made
        assert post_form(made, SMALL).status_code == 200


@contextlib.contextmanager
def connected(service: RunningService) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        yield connection


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *headers, "", ""]).encode()


def everything(connection: socket.socket) -> bytes:
    """Return what the service sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(
    strict: RunningService, client: httpx.Client
) -> None:
    with connected(strict) as connection:
        connection.sendall(head("POST", EDITS, "content-type: application/json", "content-length: 100000000"))
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"more than 200,000 bytes" in answer


def test_a_chunked_body_is_refused_when_it_becomes_too_large(client: httpx.Client) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(1600):
            sent.append(65536)
            yield b"x" * 65536

    for content_type in ("application/json", "multipart/form-data; boundary=x"):
        with contextlib.suppress(httpx.WriteError):
            answer = client.post(EDITS, content=endless(), headers={"content-type": content_type})
            assert answer.status_code == (413 if content_type == "application/json" else answer.status_code)
            assert 400 <= answer.status_code < 500


def test_a_bomb_is_refused_by_its_header(client: httpx.Client) -> None:
    side = 9000
    bomb = io.BytesIO()
    header = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    bomb.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(side * (side + 1)), 9)), (b"IEND", b"")):
        bomb.write(len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big"))
    started = time.monotonic()
    for edit in (
        SmallEdit(source=bomb.getvalue()),
        SmallEdit(exemplar=bomb.getvalue()),
        SmallEdit(mask=bomb.getvalue()),
    ):
        answer = post_form(client, edit)
        assert answer.status_code == 400
        assert "9000 x 9000 px are more than" in answer.json()["error"]["message"]
    assert time.monotonic() - started < 5


def test_an_answer_as_base64_has_a_limit(client: httpx.Client) -> None:
    assert post_form(client, SMALL, n=2).status_code == 200
    refused = post_form(client, SMALL, n=3)
    assert refused.status_code == 400
    assert "an answer as Base64 holds 2" in refused.json()["error"]["message"]
    assert post_form(client, SMALL, n=3, response_format="url").status_code == 200


def test_a_slow_body_gets_a_408(strict: RunningService, client: httpx.Client) -> None:
    with connected(strict) as connection:
        connection.sendall(head("POST", EDITS, "content-type: application/json", "content-length: 1000") + b"{")
        started = time.monotonic()
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert TIMEOUT_S / 2 < time.monotonic() - started < 5


@pytest.mark.parametrize("sent", [b"", b"POST /v1", b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "])
def test_a_connection_without_a_request_is_closed(strict: RunningService, client: httpx.Client, sent: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(sent)
        assert everything(connection) == b""


def test_a_connection_that_sends_a_byte_at_a_time_is_closed(strict: RunningService, client: httpx.Client) -> None:
    with connected(strict) as connection:
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in head("GET", "/healthz", *["x: y"] * 20):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - started < 5


def test_headers_have_limits(strict: RunningService, client: httpx.Client) -> None:
    many = client.get("/healthz", headers={f"x-{number}": "1" for number in range(40)})
    assert many.status_code == 431
    assert "send at most 30" in many.json()["error"]["message"]
    with connected(strict) as connection:
        connection.sendall(head("GET", "/healthz", "x: " + "y" * 10_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 431")
    assert client.get("/healthz?" + "y" * 10_000).status_code == 414
    with connected(strict) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # TLS
        assert everything(connection).startswith(b"HTTP/1.1 400")


def test_a_client_that_leaves_cancels_its_edit(strict: RunningService, client: httpx.Client) -> None:
    before = strict.dispatcher.state.counters.cancelled
    with gated(strict.dispatcher) as painter:
        with pytest.raises(httpx.ReadTimeout):
            client.post(EDITS, json=SMALL.json(), timeout=0.3)
        assert painter.entered.wait(10)
        wait_for(lambda: strict.dispatcher.state.counters.cancelled == before + 1)
    strict.wait_until_idle()


def test_a_client_that_leaves_a_stream_cancels_its_edit(strict: RunningService, client: httpx.Client) -> None:
    before = strict.dispatcher.state.counters.cancelled
    with gated(strict.dispatcher) as painter:
        with client.stream("POST", EDITS, json=SMALL.json(stream=True)) as answer:
            assert answer.status_code == 200
            assert painter.entered.wait(10)
        wait_for(lambda: strict.dispatcher.state.counters.cancelled == before + 1)
    strict.wait_until_idle()


def test_a_job_can_be_cancelled(strict: RunningService, client: httpx.Client) -> None:
    with gated(strict.dispatcher) as painter:
        job = "/v1/jobs/" + client.post(f"{EDITS}?async=1", json=SMALL.json()).json()["id"]
        assert painter.entered.wait(10)
        assert client.get(job).json()["status"] == "running"
        assert client.get(f"{job}/result").json()["error"]["code"] == "job_not_done"
        assert client.delete(job).json()["status"] == "cancelled"
        assert client.get(f"{job}/result").status_code == 409
    strict.wait_until_idle()


def test_more_than_the_queue_holds_get_a_429(strict: RunningService, client: httpx.Client) -> None:
    answers: list[httpx.Response] = []

    def send(number: int) -> None:
        with strict.client(None) as each:
            answers.append(each.post(EDITS, json=SMALL.json(seed=number)))

    with gated(strict.dispatcher) as painter, ThreadPoolExecutor(16) as threads:
        for number in range(16):
            threads.submit(send, number)
        wait_for(lambda: len(answers) >= 16 - OPEN_REQUESTS)
        painter.gate.set()
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(good) + len(refused) == 16
    assert 1 <= len(good) <= OPEN_REQUESTS
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "queue_full"


def test_pages_of_other_sites_are_refused_where_there_are_no_tokens(client: httpx.Client) -> None:
    for headers in ({"host": "attacker.example"}, {"host": "127.0.0.1.attacker.example"}, {"host": "[x"}):
        assert client.get("/v1/models", headers=headers).status_code == 403
    for origin in ("https://attacker.example", "null"):
        assert client.post(EDITS, json=SMALL.json(), headers={"origin": origin}).status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.post(EDITS, json=SMALL.json(), headers={"origin": own}).status_code == 200


def test_a_client_that_does_not_read_is_left(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MIN_SENT_BYTES_PER_S", 1e9)
    big = SmallEdit(source=png(np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)))
    mask = np.zeros((1200, 1200), np.uint8)
    mask[100:120, 100:120] = 255
    body = httpx.Request("POST", f"http://127.0.0.1{EDITS}", json=big.json(mask=encoded(png(mask)), n=2, num_steps=1))
    with running_service(model_folder, send_timeout_s=1) as service, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        headers = [f"{name}: {value}" for name, value in body.headers.items() if name != "host"]
        connection.sendall(head("POST", EDITS, *headers) + body.read())
        with service.client(None) as watcher:
            wait_for(lambda: 'code="499"' in watcher.get("/metrics").text)


def test_other_machines_need_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"host 0\.0\.0\.0 is reached by other machines"):
        ServiceSettings(host="0.0.0.0")
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert ServiceSettings(host=host).is_loopback
    assert not ServiceSettings(host="example.org", tokens_file=tmp_path / "tokens").is_loopback


def test_threads_of_the_service_do_not_grow(strict: RunningService, client: httpx.Client) -> None:
    post_form(client, SMALL)
    before = threading.active_count()
    for number in range(20):
        assert post_form(client, SMALL, seed=number).status_code == 200
    assert threading.active_count() <= before + 2
