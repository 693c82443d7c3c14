"""Where objects are fetched from: an S3 bucket, an HTTP server or a folder, behind one method.

`fetch` writes one object to a file and checks it: its length, and its MD5 wherever the ETag is one. Given the MD5 of a
copy that is already here it asks for the object only if it differs, so nothing whole is ever sent twice. Failures that
may pass are tried again with growing pauses; what stays lost is a `LostError` with an outcome that can be counted.
"""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_BLOCK_BYTES = 1 << 18
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32})"?')


class Fetched(NamedTuple):
    """An object that is here and whole; `unchanged` when the copy known before was it, and nothing was written."""

    num_bytes: int
    md5: str
    unchanged: bool = False


class LostError(Exception):
    """An object that could not be had; `outcome` is "missing", "denied", "corrupt" or "failed"."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class _TransientError(LostError):
    """A loss that another try may mend."""


class Store(Protocol):
    """A place that objects are fetched from."""

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        """Write the object to `target`, unless its MD5 is `known_md5`; raises LostError when it cannot be had whole."""
        ...

    def locate(self, key: str) -> str:
        """The object's full address, for messages."""
        ...


def hash_file(path: Path) -> tuple[int, str]:
    """The file's length in bytes and its MD5, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return file.tell(), digest.hexdigest()


class FolderStore:
    """Files under `root`, copied (a link would let a later write here change the original)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, key: str) -> Path:
        return self.root / key

    def locate(self, key: str) -> str:
        return str(self.path_of(key))

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        source = self.path_of(key)
        try:
            if known_md5 is not None:
                num_bytes, md5 = hash_file(source)
                if md5 == known_md5:
                    return Fetched(num_bytes, md5, unchanged=True)
            with source.open("rb") as file:
                return Fetched(*_write(iter(lambda: file.read(_BLOCK_BYTES), b""), target))
        except (FileNotFoundError, NotADirectoryError):
            raise LostError("missing", f"{source}: no such file") from None
        except PermissionError:
            raise LostError("denied", f"{source}: not readable") from None


class FileStore(FolderStore):
    """Files wherever they are, under keys of their own."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def path_of(self, key: str) -> Path:
        return self.files[key]


class S3Store:
    """The objects of a bucket under a key prefix; the client may be used by many threads at once."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str, max_attempts: int) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix
        self.max_attempts = max_attempts

    def locate(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        return _try(self.max_attempts, lambda: self._fetch_once(key, target, known_md5))

    def _fetch_once(self, key: str, target: Path, known_md5: str | None) -> Fetched:
        condition: dict[str, Any] = {"IfNoneMatch": f'"{known_md5}"'} if known_md5 else {}
        try:
            reply = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key, **condition)
        except NoCredentialsError:
            raise ValueError(
                f"{self.locate(key)}: no AWS credentials found; set them up as for the aws command"
            ) from None
        except ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status == 304 and known_md5:
                return Fetched(0, known_md5, unchanged=True)
            raise LostError(_outcome(status), f"{self.locate(key)}: {error}") from None
        except BotoCoreError as error:  # botocore has tried it max_attempts times already
            raise LostError("failed", f"{self.locate(key)}: {error}") from None
        # Under these keys the ETag is no MD5 of the content.
        encrypted = reply.get("SSECustomerAlgorithm") or reply.get("ServerSideEncryption", "AES256") != "AES256"
        try:
            written = _write(reply["Body"].iter_chunks(_BLOCK_BYTES), target)
        except BotoCoreError as error:
            raise _TransientError("failed", f"{self.locate(key)}: {error}") from None
        _check(self.locate(key), written, reply["ContentLength"], None if encrypted else reply.get("ETag"))
        return Fetched(*written)


class HttpStore:
    """The objects under a URL."""

    def __init__(self, url: str, max_attempts: int) -> None:
        self.url = url.rstrip("/")
        self.max_attempts = max_attempts

    def locate(self, key: str) -> str:
        return f"{self.url}/{quote(key)}"

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        return _try(self.max_attempts, lambda: self._fetch_once(key, target, known_md5))

    def _fetch_once(self, key: str, target: Path, known_md5: str | None) -> Fetched:
        url = self.locate(key)
        request = urllib.request.Request(url, headers={"If-None-Match": f'"{known_md5}"'} if known_md5 else {})
        try:
            with urllib.request.urlopen(request, timeout=_READ_TIMEOUT_S) as reply:
                written = _write(iter(lambda: reply.read(_BLOCK_BYTES), b""), target)
                length, etag = reply.headers.get("Content-Length"), reply.headers.get("ETag")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304 and known_md5:
                return Fetched(0, known_md5, unchanged=True)
            kind = _TransientError if error.code == 429 or error.code >= 500 else LostError
            raise kind(_outcome(error.code), f"{url}: HTTP {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError("failed", f"{url}: {error}") from None
        _check(url, written, None if length is None else int(length), etag)
        return Fetched(*written)


def connect_s3(endpoint_url: str | None, unsigned: bool, workers: int, max_attempts: int) -> "S3Client":
    """A client for `workers` threads; `unsigned` for public buckets, else with the usual chain of credentials."""
    config = Config(
        signature_version=UNSIGNED if unsigned else None,
        max_pool_connections=workers,
        retries={"mode": "adaptive", "total_max_attempts": max_attempts},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        response_checksum_validation="when_required",  # every body is checked against its ETag here
    )
    session = boto3.session.Session()  # boto3's shared one keeps the credentials that its first user had
    return session.client("s3", endpoint_url=endpoint_url, config=config)


def _try(max_attempts: int, fetch_once: Callable[[], Fetched]) -> Fetched:
    for attempt in range(max_attempts - 1):
        try:
            return fetch_once()
        except _TransientError:
            time.sleep(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
    return fetch_once()


def _write(blocks: Iterable[bytes], target: Path) -> tuple[int, str]:
    """Write the blocks to a new file; returns its length and MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    num_bytes = 0
    with target.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            num_bytes += len(block)
    return num_bytes, digest.hexdigest()


def _check(address: str, written: tuple[int, str], length: int | None, etag: str | None) -> None:
    """Raise _TransientError when the body is shorter than announced or not what its ETag, if that is an MD5, says."""
    num_bytes, md5 = written
    if length is not None and num_bytes != length:
        raise _TransientError("corrupt", f"{address}: {num_bytes} bytes came of {length}")
    expected = _MD5.fullmatch(etag) if etag else None
    if expected and expected[1] != md5:
        raise _TransientError("corrupt", f"{address}: its MD5 is {md5}, its ETag says {expected[1]}")


def _outcome(status: int) -> str:
    return {404: "missing", 410: "missing", 401: "denied", 403: "denied"}.get(status, "failed")
