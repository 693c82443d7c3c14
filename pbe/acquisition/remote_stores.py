"""Objects of S3 buckets and HTTP servers, transferred by obstore, retried and checked.

boto3 resolves the endpoint, the region and the credentials. obstore sends each request once; this module retries, with
growing pauses and with fewer concurrent requests while the server answers 429 or 503, and compares each object's MD5
with its ETag. obstore 0.12 shows no header of an error reply: where one matters (Retry-After, the bucket's region, the
kind of encryption), the same request is sent again with urllib.
"""

import hashlib
import re
import ssl
import threading
import time
import zlib
from abc import ABC, abstractmethod
from datetime import timedelta
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import urlopen

import boto3
import botocore.session
import obstore
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore import store as obstores
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError, NotModifiedError

from pbe.acquisition.request_limiter import RequestLimiter
from pbe.acquisition.stores import MAX_READ_BYTES, Fetched, LostError
from pbe.errors import UserError, one_line

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, RetryConfig

_NO_RETRIES: "RetryConfig" = {"max_retries": 0}  # obstore does not sign again, check the MD5 or obey Retry-After
_CREDENTIALS_TTL = timedelta(minutes=10)  # botocore renews credentials that have less left
_BLOCK_BYTES = 1 << 22
_FIRST_PAUSE_S = 0.2
_PAUSE_GROWTH = 3.0
_MAX_PAUSE_S = 20.0
_FILE_TIMEOUT_S = 24 * 3600  # of an annotation file of some GB
_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32})"?')
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_ERROR_CODE = re.compile(r"<Code>(\w+)</Code>")
_OUTCOMES = {404: "missing", 410: "missing", 401: "denied", 403: "denied"}
_TOO_MANY_REQUESTS = (429, 503)
_TRANSIENT_CODES = ("RequestTimeout", "ExpiredToken", "SlowDown")  # S3 sends the first two with status 400
_REGION_STATUSES = (301, 400, 403)

Received = tuple[Fetched, bytes | None]


class Timeouts(NamedTuple):
    """Seconds to connect, between two pieces of a reply, and for the whole of an object that is read into memory."""

    connect_s: float = 10.0
    stalled_s: float = 60.0
    read_s: float = 600.0


class RequestError(LostError):
    """A request that failed; `may_pass` says that another one may succeed, no sooner than after `pause_s`."""

    def __init__(self, outcome: str, detail: str, status: int = 0, code: str = "", pause_s: float = 0.0) -> None:
        super().__init__(outcome, detail)
        self.status, self.code, self.pause_s = status, code, pause_s
        self.too_many_requests = status in _TOO_MANY_REQUESTS
        self.may_pass = status == 0 or status >= 500 or status in (408, 429) or code in _TRANSIENT_CODES


class _Clients(NamedTuple):
    """obstore's stores of one place: one for objects read into memory, one for objects written to files."""

    read: obstores.ObjectStore
    fetch: obstores.ObjectStore


class RemoteStore(ABC):
    """The objects below an address."""

    def __init__(self, address: str, max_attempts: int, timeouts: Timeouts, ca_file: str | None = None) -> None:
        self.address, self.max_attempts, self.timeouts, self.ca_file = address, max_attempts, timeouts, ca_file
        self._limiter = RequestLimiter()
        self._clients = self._open_clients()

    @abstractmethod
    def _open(self, options: "ClientConfig") -> obstores.ObjectStore:
        """Open obstore's store of the address."""

    @abstractmethod
    def _request_url(self, key: str) -> str:
        """Return a URL that answers a plain GET as the object itself does."""

    def locate(self, key: str) -> str:
        return f"{self.address}{key}"

    def fetch(self, key: str, target: Path, known_md5: str | None = None) -> Fetched:
        return self._get(key, known_md5, target)[0]

    def read(self, key: str, known_md5: str | None = None) -> Received:
        return self._get(key, known_md5, None)

    def _open_clients(self) -> _Clients:
        read, fetch = (self._open(self._client_options(s)) for s in (self.timeouts.read_s, _FILE_TIMEOUT_S))
        return _Clients(read, fetch)

    def _client_options(self, timeout_s: float) -> "ClientConfig":
        options: ClientConfig = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=self.timeouts.connect_s),
            "read_timeout": timedelta(seconds=self.timeouts.stalled_s),
            "timeout": timedelta(seconds=timeout_s),
        }
        if self.ca_file:
            options["root_certificate"] = Path(self.ca_file).read_bytes()
        return options

    def _get(self, key: str, known_md5: str | None, target: Path | None) -> Received:
        """Request the object until it arrives complete, at most `max_attempts` times."""
        for attempt in range(1, self.max_attempts + 1):
            refused = False
            self._limiter.acquire()
            try:
                return self._get_once(key, known_md5, target)
            except RequestError as error:
                if target is not None:
                    target.unlink(missing_ok=True)
                refused = error.too_many_requests
                if not error.may_pass or attempt == self.max_attempts:
                    raise
                pause_s = error.pause_s
            finally:
                self._limiter.release(refused)
            time.sleep(max(pause_s, _pause_s(self.locate(key), attempt)))
        raise AssertionError(self.max_attempts)

    def _get_once(self, key: str, known_md5: str | None, target: Path | None) -> Received:
        client = self._clients.read if target is None else self._clients.fetch
        try:
            reply = obstore.get(client, key, options={"if_none_match": f'"{known_md5}"'} if known_md5 else None)
        except (BaseError, FileNotFoundError) as error:
            if known_md5 and isinstance(error, NotModifiedError):
                return Fetched(0, known_md5, unchanged=True), None
            raise self._request_error(key, str(error)) from None
        meta = reply.meta
        if target is None and meta["size"] > MAX_READ_BYTES:
            raise LostError("failed", f"{self.locate(key)}: larger than {MAX_READ_BYTES} bytes")
        try:
            fetched, content = _read(reply) if target is None else (_save(reply, target), None)
        except BaseError as error:
            outcome = "failed" if "TimedOut" in str(error) else "corrupt"
            raise RequestError(outcome, f"{self.locate(key)}: the reply ended early") from None
        self._check_md5(key, meta["e_tag"], fetched.md5)
        return fetched, content

    def _check_md5(self, key: str, etag: str | None, md5: str) -> None:
        """Raise RequestError when the ETag is an MD5, but not the object's."""
        expected = _MD5.fullmatch(etag or "")
        if expected is None or expected[1] == md5 or _is_encrypted(self._reply_headers(key)):
            return
        raise RequestError("corrupt", f"{self.locate(key)}: its MD5 is {md5}, but its ETag {expected[1]}")

    def _request_error(self, key: str, text: str) -> RequestError:
        """Return what obstore's error message means, with the pause that the server asks for."""
        found, code = _STATUS.search(text), _ERROR_CODE.search(text)
        status = int(found[1]) if found else 301 if "redirect without LOCATION" in text else 0
        name = code[1] if code else ""
        reason = f"HTTP {status} {name}".rstrip() if status else text.splitlines()[0].rpartition(" - ")[2]
        wanted = self._reply_headers(key).get("retry-after", "") if status in _TOO_MANY_REQUESTS else ""
        pause_s = min(float(wanted), _MAX_PAUSE_S) if wanted.isdecimal() else 0.0
        return RequestError(_OUTCOMES.get(status, "failed"), f"{self.locate(key)}: {reason}", status, name, pause_s)

    def _reply_headers(self, key: str) -> Message:
        """Return the headers of a reply to another request for the object; none when there is no reply."""
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        try:
            with urlopen(self._request_url(key), timeout=self.timeouts.connect_s, context=context) as reply:
                return reply.headers  # type: ignore[no-any-return]
        except HTTPError as error:
            with error:
                return error.headers
        except (OSError, HTTPException):
            return Message()


class HttpStore(RemoteStore):
    """The objects below a URL."""

    def __init__(self, url: str, max_attempts: int, timeouts: Timeouts = Timeouts()) -> None:  # noqa: B008
        super().__init__(f"{url.rstrip('/')}/", max_attempts, timeouts)

    def _open(self, options: "ClientConfig") -> obstores.ObjectStore:
        try:
            return obstores.HTTPStore(self.address.rstrip("/"), client_options=options, retry_config=_NO_RETRIES)
        except ValueError as error:
            raise UserError(f"{self.address}: not a URL: {one_line(error)}") from None

    def _request_url(self, key: str) -> str:
        return self.address + quote(key)


class S3Store(RemoteStore):
    """The objects of a bucket below a key prefix; a bucket that is in another region than expected is found there.

    `endpoint_url` is an S3-compatible server, which is addressed in path style; None means the one that boto3 finds.
    `unsigned` is for public buckets, which AWS_ENDPOINT_URL and boto3's other settings do not move.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        max_attempts: int,
        endpoint_url: str | None = None,
        unsigned: bool = False,
        timeouts: Timeouts = Timeouts(),  # noqa: B008
    ) -> None:
        self.bucket, self.prefix, self.endpoint_url, self.unsigned = bucket, prefix, endpoint_url, unsigned
        session = botocore.session.Session()  # boto3's default session keeps the credentials of its first use
        self.session = boto3.session.Session(botocore_session=session)
        self._reopening = threading.Lock()
        address = f"s3://{bucket}/{prefix}"
        try:
            if not unsigned and self.session.get_credentials() is None:
                raise UserError(f"{address}: no AWS credentials found; set them up as for the aws command")
            self._bucket_url, self._region = self.find_bucket(None)
        except BotoCoreError as error:
            raise UserError(f"{address}: {one_line(error)}") from None
        super().__init__(address, max_attempts, timeouts, session.get_config_variable("ca_bundle"))

    def find_bucket(self, region: str | None) -> tuple[str, str]:
        """Return the bucket's URL and the region to sign for; without `region`, the one that boto3 is set up for."""
        config = Config(
            signature_version=UNSIGNED if self.unsigned else "s3v4",
            s3={"addressing_style": "path" if self.endpoint_url or "." in self.bucket else "virtual"},
            # AWS_ENDPOINT_URL is the team's own store; botocore's stubs lack the option
            ignore_configured_endpoint_urls=self.unsigned,  # type: ignore[call-arg]
        )
        try:
            client = self.session.client("s3", region_name=region, endpoint_url=self.endpoint_url, config=config)
        except ValueError as error:  # of an endpoint that is no URL
            raise UserError(f"acquire.endpoint_url: {one_line(error)}") from None
        url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "-"}))
        scope = parse_qs(url.query).get("X-Amz-Credential", ["///"])[0].split("/")
        return f"{url.scheme}://{url.netloc}{url.path[:-2]}", scope[2] or "us-east-1"

    def _open(self, options: "ClientConfig") -> obstores.ObjectStore:
        return obstores.S3Store(
            self.bucket,
            prefix=self.prefix or None,
            endpoint=self._bucket_url,
            virtual_hosted_style_request=True,  # which means that the endpoint is the bucket's
            region=self._region,
            skip_signature=self.unsigned,
            credential_provider=None if self.unsigned else Boto3CredentialProvider(self.session, ttl=_CREDENTIALS_TTL),
            client_options=options,
            retry_config=_NO_RETRIES,
        )

    def _request_url(self, key: str) -> str:
        if self.unsigned:
            return f"{self._bucket_url}/{quote(self.prefix + key)}"
        store = self._clients.read
        assert isinstance(store, obstores.S3Store)
        return obstore.sign(store, "GET", key, timedelta(minutes=1))

    def _get_once(self, key: str, known_md5: str | None, target: Path | None) -> Received:
        clients = self._clients
        try:
            return super()._get_once(key, known_md5, target)
        except RequestError as error:
            if error.code == "ExpiredToken":
                self._reopen(clients, self._region)
            if error.status not in _REGION_STATUSES or not self._follow(clients, key):
                raise
        return super()._get_once(key, known_md5, target)

    def _follow(self, clients: _Clients, key: str) -> bool:
        """Address the bucket in its own region; returns whether that is another one than `clients` used."""
        if self._clients is not clients:
            return True
        region = self._reply_headers(key).get("x-amz-bucket-region", self._region)
        if region != self._region:
            self._reopen(clients, region)
        return self._clients is not clients

    def _reopen(self, clients: _Clients, region: str) -> None:
        """Replace `clients`, unless another thread has done so: with current credentials, in `region`."""
        with self._reopening:
            if self._clients is not clients:
                return
            if region != self._region:
                self._bucket_url, self._region = self.find_bucket(region)
            self._clients = self._open_clients()


def _read(reply: "GetResult") -> tuple[Fetched, bytes]:
    content = bytes(reply.bytes())
    return Fetched(len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()), content


def _save(reply: "GetResult", target: Path) -> Fetched:
    """Write the body to `target`, a large one in blocks."""
    if reply.meta["size"] <= _BLOCK_BYTES:
        fetched, content = _read(reply)
        target.write_bytes(content)
        return fetched
    digest = hashlib.md5(usedforsecurity=False)
    with target.open("wb") as file:
        for block in reply.stream(min_chunk_size=_BLOCK_BYTES):
            digest.update(block)
            file.write(block)
        return Fetched(file.tell(), digest.hexdigest())


def _is_encrypted(headers: Message) -> bool:
    """Return whether the object is encrypted with a key, so that its ETag is not its MD5."""
    encryption = headers.get("x-amz-server-side-encryption", "AES256")
    return encryption != "AES256" or "x-amz-server-side-encryption-customer-algorithm" in headers


def _pause_s(address: str, attempt: int) -> float:
    """Return a pause that grows with the attempts; its second half depends on the address, to spread the requests."""
    spread = zlib.crc32(f"{attempt} {address}".encode()) / 2**32
    return min(_FIRST_PAUSE_S * _PAUSE_GROWTH ** (attempt - 1), _MAX_PAUSE_S) * (1 + spread) / 2
