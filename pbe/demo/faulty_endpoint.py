"""An S3 endpoint on loopback that fails as servers on the internet do, to test code that must tolerate it.

It serves the files of a folder to unsigned GET requests in path style, with the MD5 as ETag, and supports
If-None-Match. A share of the requests gets one of FAULTS, drawn by the seed, the path and the number of requests for
that path so far; the order in which concurrent requests arrive does not matter.
"""

import hashlib
import random
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FAULTS = {
    "500": "500 InternalError",
    "503": "503 SlowDown",
    "429": "429 TooManyRequests, Retry-After: 1",
    "short": "the body ends early",
    "wrong": "other content with the right ETag",
    "slow": "a body that comes in small pieces",
    "no reply": "the connection is reset before the reply",
    "reset": "the connection is reset within the body",
}

_NUM_PIECES = 10


class FaultyEndpoint(socketserver.ThreadingTCPServer):
    """The server, with its number of requests and of `faults` by kind."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, share: float, seed: int, slow_s: float, kinds: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.root, self.share, self.seed, self.slow_s, self.kinds = root, share, seed, slow_s, kinds
        self.faults: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._counting = threading.Lock()

    @property
    def num_requests(self) -> int:
        return self._asked.total()

    def draw(self, path: str) -> str | None:
        """Return the fault that this request for the path gets, if any."""
        with self._counting:
            rng = random.Random(f"{self.seed} {path} {self._asked[path]}")
            self._asked[path] += 1
            if rng.random() >= self.share:
                return None
            fault = rng.choice(self.kinds)
            self.faults[fault] += 1
            return fault

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the orderly shutdown, which would hide the reset


class _Connection(socketserver.StreamRequestHandler):
    server: FaultyEndpoint
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while self._answer_next():
                pass
        except ConnectionError:
            pass  # the client was killed

    def _answer_next(self) -> bool:
        """Answer a request; return whether the connection can be used again."""
        words = self.rfile.readline().split()
        lines = iter(self.rfile.readline, b"\r\n")
        if not words:
            return False
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        path = unquote(words[1].decode()).lstrip("/")
        fault = self.server.draw(path)
        if fault in ("500", "503", "429"):
            status, _, more = FAULTS[fault].partition(", ")
            return self._reply(status, f"<Error><Code>{status[4:]}</Code></Error>".encode(), more)
        if fault == "no reply":
            return self._reset()
        try:
            content = (self.server.root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return self._reply("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        if fault is None and headers.get(b"if-none-match") == etag.encode():
            return self._reply("304 Not Modified", b"", f"ETag: {etag}")
        return self._send(content, etag, fault)

    def _send(self, content: bytes, etag: str, fault: str | None) -> bool:
        middle, length = len(content) // 2, len(content)
        if fault == "wrong":
            content = content[:middle] + bytes(length - middle)
        elif fault in ("short", "reset"):
            content = content[:middle]
        elif fault == "slow":
            self._reply("200 OK", b"", f"ETag: {etag}", length)
            for start in range(0, length, length // _NUM_PIECES + 1):
                time.sleep(self.server.slow_s / _NUM_PIECES)
                self.wfile.write(content[start : start + length // _NUM_PIECES + 1])
            return True
        self._reply("200 OK", content, f"ETag: {etag}", length)
        return self._reset() if fault == "reset" else fault != "short"

    def _reply(self, status: str, body: bytes, more: str = "", length: int | None = None) -> bool:
        length = len(body) if length is None else length
        head = "\r\n".join(filter(None, (f"HTTP/1.1 {status}", f"Content-Length: {length}", more)))
        self.wfile.write(f"{head}\r\n\r\n".encode() + body)
        return True

    def _reset(self) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


@contextmanager
def serve_faulty(
    root: Path, share: float, seed: int, slow_s: float = 0.5, kinds: Sequence[str] = tuple(FAULTS)
) -> Iterator[FaultyEndpoint]:
    """Serve the folders in `root` as buckets on a free port; a `share` of requests fails or takes `slow_s` seconds."""
    with FaultyEndpoint(root, share, seed, slow_s, kinds) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
