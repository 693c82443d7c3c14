"""Tokens and their quotas.

The file has a token a line, `NAME:TOKEN` or `NAME:sha256:HEX` with the SHA-256 of the token, followed by the quotas
that differ from the defaults:

    alice:sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 requests_per_minute=120
    bob:a-long-random-text max_jobs=2

Lines that begin with # are comments. A change to the file is used from the next request on.
"""

import hashlib
import hmac
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pbe.dataset.opened_images import read_bytes_of
from pbe.errors import UserError, one_line
from pbe.serving.service.openai_errors import ServiceError

ANONYMOUS = ""  # the owner of everything where no tokens are set
BUSY_RETRY_S = 2.0  # when to ask again while one's own jobs are painted
_MIN_CHARACTERS = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token:
    """One user of the service: the digest of the token, and quotas; None is no quota."""

    name: str
    digest: bytes
    requests_per_minute: int | None = 60
    max_jobs: int | None = 16  # pictures that are queued or painted at one time


@dataclass
class Usage:
    """What one user has used."""

    requests: deque[float] = field(default_factory=deque)  # times of the last minute
    num_jobs: int = 0


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens; raises UserError naming the line that is wrong."""
    try:
        text = read_bytes_of(path).decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    tokens = tuple(_token(line, f"{path}, line {number}") for number, line in lines if line and line[0] != "#")
    if not tokens:
        raise UserError(f"{path}: has no token; write a line NAME:TOKEN for each user")
    for what, values in (("name", [t.name for t in tokens]), ("token", [t.digest for t in tokens])):
        if len(set(values)) < len(values):
            raise UserError(f"{path}: has the same {what} on two lines")
    return tokens


def _token(line: str, where: str) -> Token:
    identity, *quotas = line.split()
    name, _, secret = identity.partition(":")
    if not _NAME.fullmatch(name) or not secret:
        raise UserError(f"{where}: write NAME:TOKEN, the name of letters, digits, '.', '_' and '-'")
    if match := _DIGEST.fullmatch(secret):
        digest = bytes.fromhex(match[1])
    elif secret.startswith("sha256:"):
        raise UserError(f"{where}: sha256: is followed by the 64 hexadecimal digits of a token's SHA-256")
    elif len(secret) < _MIN_CHARACTERS:
        raise UserError(
            f"{where}: the token has fewer than {_MIN_CHARACTERS} characters; `openssl rand -hex 32` makes one"
        )
    else:
        digest = _digest(secret)
    return Token(name, digest, **dict(_quota(quota, where) for quota in quotas))


def _quota(text: str, where: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name not in ("requests_per_minute", "max_jobs") or not re.fullmatch(r"[0-9]{1,9}", value) or not int(value):
        raise UserError(f"{where}: {text}: write requests_per_minute=N or max_jobs=N, at least 1")
    return name, int(value)


class Tokens:
    """The users of the service. Without a file everybody is `ANONYMOUS`, without quotas."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._tokens = read_tokens(path) if path else ()
        self._version = _version(path)
        self._usage: dict[str, Usage] = {}
        self._lock = threading.Lock()  # of the numbers of jobs, which end in other threads

    @property
    def required(self) -> bool:
        """Return whether a request needs a token."""
        return self._path is not None

    def authenticate(self, authorization: str | None) -> Token:
        """Return whose token an Authorization header carries; raises a 401 without a valid one."""
        if not self.required:
            return Token(ANONYMOUS, b"", None, None)
        self._reload()
        scheme, _, secret = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _unauthorized("no token: send the header Authorization: Bearer TOKEN")
        digest = _digest(secret.strip())
        found = [token for token in self._tokens if hmac.compare_digest(token.digest, digest)]  # looks at every one
        if not found:
            raise _unauthorized("the token is not valid", "invalid_api_key")
        return found[0]

    def count_request(self, token: Token) -> dict[str, str]:
        """Count a request and return the headers that tell its quota; raises a 429 when a minute's are used up."""
        limit, now = token.requests_per_minute, self._clock()
        if limit is None:
            return {}
        times = self._used_by(token).requests
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= limit:
            raise _over_quota(f"{limit} requests a minute are this token's quota", times[0] + 60 - now)
        times.append(now)
        return {"x-ratelimit-limit-requests": str(limit), "x-ratelimit-remaining-requests": str(limit - len(times))}

    def begin_jobs(self, token: Token, number: int) -> None:
        """Count jobs that begin; raises a 429 when more than the quota would be open."""
        if token.max_jobs is not None and number > token.max_jobs:
            raise ServiceError(400, f"n is {number}: this token may have {token.max_jobs} at one time", param="n")
        usage = self._used_by(token)
        with self._lock:
            if token.max_jobs is not None and (total := usage.num_jobs + number) > token.max_jobs:
                message = f"{total} pictures would be queued or painted: this token's quota is {token.max_jobs}"
                raise _over_quota(message, BUSY_RETRY_S)
            usage.num_jobs += number

    def end_jobs(self, token: Token, number: int) -> None:
        """Count jobs that have ended."""
        with self._lock:
            self._used_by(token).num_jobs -= number

    def _used_by(self, token: Token) -> Usage:
        return self._usage.setdefault(token.name, Usage())

    def _reload(self) -> None:
        """Read the file again when it has changed; with an error in it, the tokens stay as they are."""
        version = _version(self._path)
        if version == self._version or self._path is None:
            return
        self._version = version
        try:
            self._tokens = read_tokens(self._path)
        except UserError as error:
            _log.error("the tokens are unchanged: %s", one_line(error))


def _version(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(message: str, code: str | None = None) -> ServiceError:
    return ServiceError(401, message, code=code, headers={"www-authenticate": "Bearer"})


def _over_quota(message: str, retry_after_s: float) -> ServiceError:
    return ServiceError(429, message, code="rate_limit_exceeded", retry_after_s=retry_after_s)
