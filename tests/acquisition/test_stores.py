"""Folders and files as stores."""

import hashlib
from pathlib import Path

import pytest

from pbe.acquisition.stores import FileStore, FolderStore, LostError, hash_file

BODY = b"the object's bytes" * 100
MD5 = hashlib.md5(BODY).hexdigest()


def test_a_folder_copies_files_unless_their_md5_is_known(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    store = FolderStore(tmp_path)
    assert store.fetch("a", tmp_path / "copy") == (len(BODY), MD5, False)
    assert hash_file(tmp_path / "copy") == (len(BODY), MD5)
    assert store.fetch("a", tmp_path / "other", MD5).unchanged
    assert not (tmp_path / "other").exists()
    assert not store.fetch("a", tmp_path / "other", "0" * 32).unchanged
    assert store.read("a") == ((len(BODY), MD5, False), BODY)
    assert store.read("a", MD5) == ((len(BODY), MD5, True), None)


def test_a_missing_file_is_a_loss(tmp_path: Path) -> None:
    with pytest.raises(LostError, match="no such file") as caught:
        FolderStore(tmp_path).fetch("b", tmp_path / "copy")
    assert caught.value.outcome == "missing"


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbe.acquisition.stores.MAX_READ_BYTES", 1000)
    (tmp_path / "key").write_bytes(BODY)
    with pytest.raises(LostError, match="key: larger than 1000 bytes"):
        FolderStore(tmp_path).read("key")


def test_files_and_functions_are_read_under_their_keys(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    store = FileStore({"file": tmp_path / "a", "function": lambda: BODY})
    for key in store.files:
        assert store.read(key) == ((len(BODY), MD5, False), BODY)
        assert store.read(key, MD5) == ((len(BODY), MD5, True), None)
        assert store.fetch(key, tmp_path / key) == (len(BODY), MD5, False)
        assert (tmp_path / key).read_bytes() == BODY
