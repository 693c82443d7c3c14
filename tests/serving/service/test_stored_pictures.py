"""Pictures that clients fetch later."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pbe.serving.service.stored_pictures import StoredPictures

KIND = "image/png"


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def stored(now: list[float]) -> Iterator[StoredPictures]:
    pictures = StoredPictures(lifetime_s=10, max_bytes=10, clock=lambda: now[0])
    yield pictures
    pictures.close()


def test_a_picture_is_its_owners_until_it_expires(stored: StoredPictures, now: list[float]) -> None:
    picture = stored.add("alice", b"12345", KIND)
    assert stored.read(picture.id, "alice") == (b"12345", KIND)
    assert stored.read(picture.id, "bob") is None
    assert stored.read("../../etc/passwd", "alice") is None
    now[0] = 10
    assert stored.read(picture.id, "alice") is None
    assert not picture.path.exists()


def test_the_owners_oldest_pictures_make_room(stored: StoredPictures) -> None:
    of_bob = stored.add("bob", b"123456789", KIND)
    first, second, third = (stored.add("alice", b"12345", KIND) for _ in range(3))
    assert stored.find(first.id, "alice") is None
    assert stored.find(second.id, "alice") == second
    assert stored.find(third.id, "alice") == third
    assert stored.find(of_bob.id, "bob") == of_bob


def test_close_removes_the_folder(stored: StoredPictures) -> None:
    folder = Path(stored.add("alice", b"1", KIND).path).parent
    assert folder.stat().st_mode & 0o077 == 0
    stored.close()
    assert not folder.exists()
