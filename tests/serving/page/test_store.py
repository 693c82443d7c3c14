"""What open pages hold, and when it is deleted."""

from dataclasses import dataclass

import pytest

from pbe.errors import UserError
from pbe.serving.page.store import PageStore


@dataclass(frozen=True)
class Item:
    num_bytes: int = 10


@dataclass(frozen=True)
class Other:
    num_bytes: int = 10


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_an_item_is_found_by_its_token_alone() -> None:
    store, item = PageStore(), Item()
    token = store.add("page", item)
    assert len(token) == 22
    assert store.get(token, Item) is item
    assert store.holds(token)
    assert store.add("page", item) != token


def test_an_unknown_token_and_one_of_another_kind_are_refused() -> None:
    store = PageStore()
    token = store.add("page", Item())
    for asked, kind in ((token, Other), ("x" * 22, Item)):
        with pytest.raises(UserError, match="no longer holds this picture"):
            store.get(asked, kind)


def test_closing_a_session_deletes_the_items_of_its_pages_only() -> None:
    store = PageStore()
    mine, theirs = store.add("my page", Item()), store.add("their page", Item())
    store.link("my session", "my page")
    store.link("their session", "their page")
    store.close("my session")
    assert not store.holds(mine)
    assert store.holds(theirs)


def test_a_session_is_open_until_it_is_closed() -> None:
    store = PageStore()
    store.link("session", "page")
    assert store.is_open("session")
    store.close("session")
    assert not store.is_open("session")


def test_items_are_forgotten() -> None:
    store = PageStore()
    first, second = store.add("page", Item()), store.add("page", Item())
    store.forget([first, "unknown"])
    assert [store.holds(token) for token in (first, second)] == [False, True]


def test_items_without_use_are_deleted() -> None:
    clock = Clock()
    store = PageStore(max_idle_s=100, clock=clock)
    used, unused = store.add("page", Item()), store.add("page", Item())
    clock.now_s = 60
    store.get(used, Item)
    clock.now_s = 120
    assert store.holds(used)
    assert not store.holds(unused)


def test_the_least_recently_used_items_make_room() -> None:
    store = PageStore(max_bytes=25)
    first, second = store.add("page", Item()), store.add("page", Item())
    store.get(first, Item)
    third = store.add("page", Item())
    assert store.num_bytes == 20
    assert [store.holds(token) for token in (first, second, third)] == [True, False, True]


def test_an_item_larger_than_the_store_is_kept_alone() -> None:
    store = PageStore(max_bytes=25)
    first, large = store.add("page", Item()), store.add("page", Item(100))
    assert store.holds(large)
    assert not store.holds(first)
