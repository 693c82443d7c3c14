"""Pictures that clients fetch later: on disk, each for its owner only, for a limited time and of a limited size."""

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredPicture:
    """An encoded picture on disk."""

    id: str
    owner: str
    media_type: str
    path: Path
    num_bytes: int
    expires_at: float  # Unix time, s


class StoredPictures:
    """Encoded pictures in a private folder, which `close` removes. Threads may share it."""

    def __init__(self, lifetime_s: float, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._lifetime_s, self._max_bytes, self._clock = lifetime_s, max_bytes, clock
        self._folder = tempfile.TemporaryDirectory(prefix="pbe-pictures-")
        self._pictures: dict[str, StoredPicture] = {}  # the oldest first
        self._lock = threading.Lock()

    def add(self, owner: str, data: bytes, media_type: str) -> StoredPicture:
        """Store a picture; the owner's oldest ones make room for it."""
        picture_id = secrets.token_urlsafe(24)
        path = Path(self._folder.name) / picture_id
        picture = StoredPicture(picture_id, owner, media_type, path, len(data), self._clock() + self._lifetime_s)
        path.write_bytes(data)
        with self._lock:
            self._drop_expired()
            own = [each for each in self._pictures.values() if each.owner == owner]
            room = self._max_bytes - len(data)
            for each in own:
                if sum(other.num_bytes for other in own if other.id in self._pictures) <= room:
                    break
                self._remove(each)
            self._pictures[picture_id] = picture
        return picture

    def find(self, picture_id: str, owner: str) -> StoredPicture | None:
        """Return a picture of this owner; None when there is none of this id, or it is another's, or too old."""
        with self._lock:
            self._drop_expired()
            picture = self._pictures.get(picture_id)
            return picture if picture and picture.owner == owner else None

    def read(self, picture_id: str, owner: str) -> tuple[bytes, str] | None:
        """Return the bytes and the media type of a picture that `find` finds."""
        picture = self.find(picture_id, owner)
        try:
            return (picture.path.read_bytes(), picture.media_type) if picture else None
        except FileNotFoundError:  # removed in between
            return None

    def remove(self, picture_id: str) -> None:
        """Remove a picture, if it is there."""
        with self._lock:
            if picture := self._pictures.get(picture_id):
                self._remove(picture)

    def remove_expired(self) -> None:
        """Remove the pictures whose time is over."""
        with self._lock:
            self._drop_expired()

    def close(self) -> None:
        """Remove all pictures."""
        with self._lock:
            self._pictures.clear()
            self._folder.cleanup()

    def _drop_expired(self) -> None:
        now = self._clock()
        for picture in [each for each in self._pictures.values() if each.expires_at <= now]:
            self._remove(picture)

    def _remove(self, picture: StoredPicture) -> None:
        del self._pictures[picture.id]
        picture.path.unlink(missing_ok=True)
