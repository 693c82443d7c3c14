"""HTTP GETs over libcurl: kept connections, bounded memory, stalled transfers cut off.

What boto3 does in Python for each object costs more than the object. libcurl does it in C without holding the other
threads up, and brings what a download needs: keep-alive, proxies from the environment, TLS, redirects, a check of the
announced length, and a least speed, below which a connection that trickles is given up as one that stands still is.
"""

import hashlib
import ssl
import threading
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path
from typing import NamedTuple

import certifi
import pycurl

_BUFFER_BYTES = 1 << 18
_HELD_BYTES = 1 << 22
_MOST_REDIRECTS = 5


class Patience(NamedTuple):
    """How long to wait for a connection, and how long one may stay below `least_bytes_per_s`."""

    connect_s: int = 10
    stalled_s: int = 60
    least_bytes_per_s: int = 1000


class CurlError(Exception):
    """A transfer that came to no reply, or only to a part of one; `code` is libcurl's (`pycurl.E_*`)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class TooLargeError(Exception):
    """A body larger than may be held in memory."""


class Reply(NamedTuple):
    """A whole reply; header names are in lower case. `content` is None when the body went to a file."""

    status: int
    headers: dict[str, str]
    num_bytes: int
    md5: str
    content: bytes | None


class Transfers:
    """Makes GETs for any number of threads, each over connections of its own, which it keeps.

    `ca_file` holds the certificates to trust; None means SSL_CERT_FILE's, else the system's, else certifi's.
    """

    def __init__(
        self, ca_file: str | None = None, follow_redirects: bool = False, patience: Patience | None = None
    ) -> None:
        self.ca_file = ca_file or ssl.get_default_verify_paths().cafile or certifi.where()
        self.follow_redirects = follow_redirects
        self.patience = patience or Patience()
        self._own = threading.local()

    def get(self, url: str, headers: Sequence[str], limit_bytes: int, spill: Path | None = None) -> Reply:
        """Get the URL, the reply's body in memory; one of status 200 and over 4 MB goes to the file `spill`, if given.

        `url` is percent-encoded, `headers` are lines. Raises CurlError when no whole reply came, TooLargeError when a
        body to be held has more than `limit_bytes`, OSError when the file cannot be written.
        """
        handle = self._handle()
        body = _Body(limit_bytes, spill)
        handle.setopt(pycurl.URL, url)
        handle.unsetopt(pycurl.HTTPHEADER)  # setting none would leave the last request's
        handle.setopt(pycurl.HTTPHEADER, list(headers))
        handle.setopt(pycurl.HEADERFUNCTION, body.take_header)
        handle.setopt(pycurl.WRITEFUNCTION, body.take)
        try:
            handle.perform()
        except pycurl.error as error:
            if body.error is not None:
                raise body.error from None
            raise CurlError(*error.args) from None
        finally:
            body.close()
        return body.reply(handle.getinfo(pycurl.RESPONSE_CODE))

    def _handle(self) -> pycurl.Curl:
        """This thread's handle."""
        if not hasattr(self._own, "handle"):
            handle = pycurl.Curl()
            handle.setopt(pycurl.NOSIGNAL, 1)  # signals and threads do not go together
            handle.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
            handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
            handle.setopt(pycurl.PATH_AS_IS, 1)
            handle.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
            handle.setopt(pycurl.CAINFO, self.ca_file)
            handle.setopt(pycurl.FOLLOWLOCATION, self.follow_redirects)
            handle.setopt(pycurl.MAXREDIRS, _MOST_REDIRECTS)
            handle.setopt(pycurl.CONNECTTIMEOUT, self.patience.connect_s)
            handle.setopt(pycurl.LOW_SPEED_TIME, self.patience.stalled_s)
            handle.setopt(pycurl.LOW_SPEED_LIMIT, self.patience.least_bytes_per_s)
            self._own.handle = handle
        return self._own.handle


class _Body:
    """Takes a reply as it comes. What is raised in a callback libcurl would lose: it is kept in `error`."""

    def __init__(self, limit_bytes: int, spill: Path | None) -> None:
        self.limit_bytes = limit_bytes
        self.spill = spill
        self.header_lines: list[bytes] = []
        self.blocks: list[bytes] = []
        self.held_bytes = 0
        self.num_bytes = 0
        self.digest = hashlib.md5(usedforsecurity=False)
        self.file: BufferedWriter | None = None
        self.error: TooLargeError | OSError | None = None

    def take_header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):  # another reply: the one before was a redirect
            self.header_lines.clear()
        self.header_lines.append(line)

    def take(self, block: bytes) -> int:
        self.blocks.append(block)
        self.held_bytes += len(block)
        try:
            if self.held_bytes > _HELD_BYTES and self.spill and self.header_lines[0].split(maxsplit=2)[1] == b"200":
                self.file = self.file or self.spill.open("wb")
                self._flush(self.file)
            elif self.held_bytes > self.limit_bytes:
                raise TooLargeError(f"more than {self.limit_bytes} bytes")
        except (OSError, TooLargeError) as error:
            self.error = error
            return 0  # which makes libcurl stop
        return len(block)

    def _flush(self, file: BufferedWriter) -> None:
        for block in self.blocks:
            self.digest.update(block)
            file.write(block)
        self.num_bytes += self.held_bytes
        self.held_bytes = 0
        self.blocks.clear()

    def close(self) -> None:
        if self.file is not None:
            with self.file:
                self._flush(self.file)

    def reply(self, status: int) -> Reply:
        headers = {}
        for line in self.header_lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if self.file is not None:
            return Reply(status, headers, self.num_bytes, self.digest.hexdigest(), None)
        content = b"".join(self.blocks)
        self.digest.update(content)
        return Reply(status, headers, len(content), self.digest.hexdigest(), content)
