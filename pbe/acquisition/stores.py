"""Where objects are fetched from: an S3 bucket, an HTTP server or a folder, behind one interface.

`fetch` brings one object to a file, `read` into memory, and both check it: its length, and its MD5 wherever the ETag is
one. Given the MD5 of a copy that is already here they ask for the object only if it differs, so nothing whole is ever
sent twice. Failures that may pass are tried again with growing pauses, by fewer threads at once for as long as the
server says that it is too much; what stays lost is a `LostError` with an outcome that can be counted.
boto3 says where a bucket is and who we are; the objects come over libcurl (`pbe.acquisition.transfer`).
"""

import hashlib
import math
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import boto3
import botocore.session
import pycurl
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoCredentialsError

from pbe.acquisition.transfer import CurlError, Patience, Reply, TooLargeError, Transfers
from pbe.errors import UserError

if TYPE_CHECKING:
    from botocore.credentials import Credentials

MOST_READ_BYTES = 1 << 26

_BLOCK_BYTES = 1 << 18
_FIRST_PAUSE_S = 0.2
_PAUSE_GROWTH = 3.0
_LONGEST_PAUSE_S = 20.0
_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32})"?')
_ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")
_TOO_MUCH = (429, 503)
_PASSING_CODES = ("RequestTimeout", "ExpiredToken", "SlowDown")  # S3 gives the first two as 400
_LASTING_CURL_ERRORS = (
    pycurl.E_URL_MALFORMAT,
    pycurl.E_UNSUPPORTED_PROTOCOL,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_TOO_MANY_REDIRECTS,
)
_REGION_STATUSES = (301, 307, 400)


class Fetched(NamedTuple):
    """An object that is here and whole; `unchanged` when the copy known before was it, and nothing was written."""

    num_bytes: int
    md5: str
    unchanged: bool = False


class LostError(Exception):
    """An object that could not be had; `outcome` is "missing", "denied", "corrupt", "refused" or "failed"."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class _TransientError(LostError):
    """A loss that another try may mend after `pause_s` at the soonest; `too_much`: the server has too many requests."""

    def __init__(self, outcome: str, detail: str, pause_s: float = 0.0, too_much: bool = False) -> None:
        super().__init__(outcome, detail)
        self.pause_s = pause_s
        self.too_much = too_much


class Store(Protocol):
    """A place that objects are fetched from, by many threads at once."""

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        """Write the object to `target`, unless its MD5 is `known_md5`; raises LostError when it cannot be had whole."""
        ...

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        """The object, None if its MD5 is `known_md5`; raises LostError as `fetch` and when it is over 64 MB."""
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
        with self._opened(key) as source:
            if known_md5 is not None:
                num_bytes, md5 = hash_file(source)
                if md5 == known_md5:
                    return Fetched(num_bytes, md5, unchanged=True)
            digest = hashlib.md5(usedforsecurity=False)
            with source.open("rb") as file, target.open("wb") as copy:
                while block := file.read(_BLOCK_BYTES):
                    copy.write(block)
                    digest.update(block)
                return Fetched(file.tell(), digest.hexdigest())

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        with self._opened(key) as source:
            if source.stat().st_size > MOST_READ_BYTES:
                raise LostError("failed", f"{source}: more than {MOST_READ_BYTES} bytes")
            return _unless_known(source.read_bytes(), known_md5)

    @contextmanager
    def _opened(self, key: str) -> Iterator[Path]:
        source = self.path_of(key)
        try:
            yield source
        except (FileNotFoundError, NotADirectoryError):
            raise LostError("missing", f"{source}: no such file") from None
        except PermissionError:
            raise LostError("denied", f"{source}: not readable") from None


class FileStore(FolderStore):
    """Files wherever they are, under keys of their own; what is inside another file comes with what reads it."""

    def __init__(self, files: Mapping[str, Path | Callable[[], bytes]]) -> None:
        self.files = files

    def path_of(self, key: str) -> Path:
        found = self.files[key]
        return found if isinstance(found, Path) else Path(key)

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        if isinstance(self.files[key], Path):
            return super().fetch(key, target, known_md5)
        fetched, content = self.read(key, known_md5)
        if content is not None:
            target.write_bytes(content)
        return fetched

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        read = self.files[key]
        return super().read(key, known_md5) if isinstance(read, Path) else _unless_known(read(), known_md5)


def _unless_known(content: bytes, known_md5: str | None) -> tuple[Fetched, bytes | None]:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return (Fetched(len(content), md5, True), None) if md5 == known_md5 else (Fetched(len(content), md5), content)


class HttpStore:
    """The objects under a URL."""

    def __init__(self, url: str, max_attempts: int, transfers: Transfers | None = None) -> None:
        self.url = url.rstrip("/")
        self.max_attempts = max_attempts
        self.transfers = transfers or Transfers(follow_redirects=True)
        self._valve = _Valve()

    def locate(self, key: str) -> str:
        return f"{self.url}/{quote(key)}"

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        fetched, content = self._try(key, known_md5, target)
        if content is not None:
            target.write_bytes(content)
        return fetched

    def read(self, key: str, known_md5: str | None = None) -> tuple[Fetched, bytes | None]:
        return self._try(key, known_md5, None)

    def _try(self, key: str, known_md5: str | None, target: Path | None) -> tuple[Fetched, bytes | None]:
        return _try(self.max_attempts, self.locate(key), self._valve, lambda: self._fetch_once(key, known_md5, target))

    def _fetch_once(self, key: str, known_md5: str | None, target: Path | None) -> tuple[Fetched, bytes | None]:
        address = self.locate(key)
        try:
            reply = self._get(key, {"If-None-Match": f'"{known_md5}"'} if known_md5 else {}, target)
        except CurlError as error:
            kind = LostError if error.code in _LASTING_CURL_ERRORS else _TransientError
            outcome = "corrupt" if error.code == pycurl.E_PARTIAL_FILE else "failed"
            raise kind(outcome, f"{address}: {error}") from None
        except TooLargeError as error:
            raise LostError("failed", f"{address}: {error}") from None
        if reply.status == 304 and known_md5:
            return Fetched(0, known_md5, unchanged=True), None
        if reply.status != 200:
            raise _loss(address, reply)
        _check(address, reply)
        return Fetched(reply.num_bytes, reply.md5), reply.content

    def _get(self, key: str, headers: dict[str, str], target: Path | None) -> Reply:
        return self._transfer(self.locate(key), headers, target)

    def _transfer(self, url: str, headers: Mapping[str, str], target: Path | None) -> Reply:
        return self.transfers.get(url, [f"{k}: {v}" for k, v in headers.items()], MOST_READ_BYTES, target)


class S3Connection:
    """Where buckets are and who we are, from boto3: endpoints, regions and the usual chain of credentials.

    `unsigned` is for public buckets; `endpoint_url` an S3-compatible server's, which is asked in path style.
    """

    def __init__(self, endpoint_url: str | None, unsigned: bool, patience: Patience | None = None) -> None:
        session = botocore.session.Session()  # boto3's shared one keeps the credentials that its first user had
        self.session = boto3.session.Session(botocore_session=session)
        self.endpoint_url = endpoint_url
        self.unsigned = unsigned
        self.transfers = Transfers(session.get_config_variable("ca_bundle"), patience=patience)

    def credentials(self) -> "Credentials | None":
        """What to sign with; raises NoCredentialsError when there is nothing."""
        if self.unsigned:
            return None
        credentials = self.session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        return credentials

    def place(self, bucket: str, region: str | None = None) -> tuple[str, str]:
        """The URL of a bucket's keys, and the region to sign for; `region` None is the user's own."""
        config = Config(
            signature_version=UNSIGNED if self.unsigned else "s3v4",
            s3={"addressing_style": "path" if self.endpoint_url or "." in bucket else "virtual"},
        )
        client = self.session.client("s3", region_name=region, endpoint_url=self.endpoint_url, config=config)
        url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "-"}))
        scope = parse_qs(url.query).get("X-Amz-Credential", ["///"])[0].split("/")
        return f"{url.scheme}://{url.netloc}{url.path[:-1]}", scope[2]


class S3Store(HttpStore):
    """The objects of a bucket under a key prefix; a bucket that is in another region is found there."""

    def __init__(self, connection: S3Connection, bucket: str, prefix: str, max_attempts: int) -> None:
        super().__init__(f"s3://{bucket}/{prefix}", max_attempts, connection.transfers)
        self.connection = connection
        self.bucket = bucket
        self.prefix = prefix
        try:
            self._credentials = connection.credentials()
            self._place = connection.place(bucket)
        except NoCredentialsError:
            raise UserError(f"{self.url}: no AWS credentials found; set them up as for the aws command") from None
        except BotoCoreError as error:
            raise UserError(f"{self.url}: {' '.join(str(error).split())}") from None
        self._moving = threading.Lock()

    def locate(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def _get(self, key: str, headers: dict[str, str], target: Path | None) -> Reply:
        place = self._place
        reply = self._get_at(place, key, headers, target)
        region = reply.headers.get("x-amz-bucket-region")
        if reply.status in _REGION_STATUSES and region and region != place[1]:
            with self._moving:
                if self._place == place:
                    self._place = self.connection.place(self.bucket, region)
            reply = self._get_at(self._place, key, headers, target)
        return reply

    def _get_at(self, place: tuple[str, str], key: str, headers: dict[str, str], target: Path | None) -> Reply:
        url, region = place[0] + quote(self.prefix + key), place[1]
        if self._credentials is None:
            return self._transfer(url, headers, target)
        request = AWSRequest("GET", url, headers=headers)
        # Frozen each time, which renews those that run out.
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", region).add_auth(request)
        return self._transfer(url, dict(request.headers.items()), target)


class _Valve:
    """Lets as many requests through at once as the server bears.

    After each refusal half as many, after each success a little more; without refusals all.
    """

    def __init__(self) -> None:
        self.most = math.inf
        self.num_open = 0
        self.changed = threading.Condition()

    def enter(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.num_open < self.most)
            self.num_open += 1

    def leave(self, refused: bool) -> None:
        with self.changed:
            self.most = max(1.0, min(self.most, self.num_open) / 2) if refused else self.most + 1 / self.most
            self.num_open -= 1
            self.changed.notify(2)


_Result = TypeVar("_Result")


def _try(max_attempts: int, address: str, valve: _Valve, fetch_once: Callable[[], _Result]) -> _Result:
    for attempt in range(1, max_attempts + 1):
        refused = False
        valve.enter()
        try:
            return fetch_once()
        except _TransientError as error:
            if attempt == max_attempts:
                raise
            refused = error.too_much
            pause_s = max(error.pause_s, _pause_s(address, attempt))
        finally:
            valve.leave(refused)
        time.sleep(pause_s)
    raise AssertionError(max_attempts)


def _pause_s(address: str, attempt: int) -> float:
    """Grows with the attempts; the address decides where between half and whole, so that not all come at once."""
    spread = zlib.crc32(f"{attempt} {address}".encode()) / 2**32
    return min(_FIRST_PAUSE_S * _PAUSE_GROWTH ** (attempt - 1), _LONGEST_PAUSE_S) * (1 + spread) / 2


def _check(address: str, reply: Reply) -> None:
    """Raise _TransientError when the body is not what its ETag, if that is an MD5, says; libcurl checks the length."""
    encryption = reply.headers.get("x-amz-server-side-encryption", "AES256")
    if encryption != "AES256" or "x-amz-server-side-encryption-customer-algorithm" in reply.headers:
        return  # under such keys the ETag is no MD5 of the content
    expected = _MD5.fullmatch(reply.headers.get("etag", ""))
    if expected and expected[1] != reply.md5:
        raise _TransientError("corrupt", f"{address}: its MD5 is {reply.md5}, its ETag says {expected[1]}")


def _loss(address: str, reply: Reply) -> LostError:
    """What a reply other than the object means."""
    found = _ERROR_CODE.search(reply.content or b"")
    code = found[1].decode() if found else ""
    detail = f"{address}: HTTP {reply.status} {code}".rstrip()
    if reply.status in _REGION_STATUSES and "x-amz-bucket-region" in reply.headers:
        detail += f"; the bucket is in {reply.headers['x-amz-bucket-region']}"
    outcome = {404: "missing", 410: "missing", 401: "denied", 403: "denied"}.get(reply.status, "failed")
    if reply.status >= 500 or reply.status in (408, 429) or code in _PASSING_CODES:
        wanted = reply.headers.get("retry-after", "")
        pause_s = min(float(wanted), _LONGEST_PAUSE_S) if wanted.isdecimal() else 0.0
        return _TransientError(outcome, detail, pause_s, reply.status in _TOO_MUCH)
    return LostError(outcome, detail)
