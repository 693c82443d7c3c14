"""Pictures of open pages, in memory: nothing that a person uploads stays on the disk.

A page is one open browser tab. It names itself with a random key, and each of its pictures gets a random token of 128
bits that only this page is given. A picture is deleted when its page is closed, after an hour without use, or when
newer pictures need the memory.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pbe.errors import UserError

MAX_BYTES = 1024**3
MAX_IDLE_S = 3600.0


class Held(Protocol):
    """What a page holds on the server."""

    @property
    def num_bytes(self) -> int: ...


@dataclass
class _Entry:
    page: str
    item: Held
    used_s: float


HeldType = TypeVar("HeldType", bound=Held)


class PageStore:
    """What open pages hold, safe under threads; at most `max_bytes` in all."""

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        max_idle_s: float = MAX_IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes, self._max_idle_s, self._clock = max_bytes, max_idle_s, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._pages: dict[str, set[str]] = {}  # of each browser session
        self._lock = threading.Lock()

    def add(self, page: str, item: Held) -> str:
        """Hold an item for a page and return its token; the least recently used items make room."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._delete_idle()
            self._entries[token] = _Entry(page, item, self._clock())
            while self.num_bytes > self._max_bytes and len(self._entries) > 1:
                self._entries.popitem(last=False)
        return token

    def get(self, token: str, kind: type[HeldType]) -> HeldType:
        """Return the item of a token; raises UserError when it was deleted or is of another kind."""
        with self._lock:
            self._delete_idle()
            entry = self._entries.get(token)
            if entry is None or not isinstance(entry.item, kind):
                raise UserError("The server no longer holds this picture: drop it on the page again.")
            entry.used_s = self._clock()
            self._entries.move_to_end(token)
            return entry.item

    def holds(self, token: str) -> bool:
        """Return whether an item is still there."""
        with self._lock:
            self._delete_idle()
            return token in self._entries

    def forget(self, tokens: Iterable[str]) -> None:
        """Delete some items."""
        with self._lock:
            for token in tokens:
                self._entries.pop(token, None)

    def link(self, session: str, page: str) -> None:
        """Note that a page belongs to a browser session, so that `close` deletes what it holds."""
        with self._lock:
            self._pages.setdefault(session, set()).add(page)

    def is_open(self, session: str) -> bool:
        """Return whether a session has a page and was not closed."""
        with self._lock:
            return session in self._pages

    def close(self, session: str) -> None:
        """Delete what the pages of a session hold."""
        with self._lock:
            pages = self._pages.pop(session, set())
            self._delete(lambda entry: entry.page in pages)

    @property
    def num_bytes(self) -> int:
        """Return the size of all items in memory."""
        return sum(entry.item.num_bytes for entry in self._entries.values())

    def _delete_idle(self) -> None:
        oldest = self._clock() - self._max_idle_s
        self._delete(lambda entry: entry.used_s < oldest)

    def _delete(self, condition: Callable[[_Entry], bool]) -> None:
        for token in [token for token, entry in self._entries.items() if condition(entry)]:
            del self._entries[token]
