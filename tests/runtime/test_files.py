"""A file or folder appears complete or not at all."""

from pathlib import Path

import pytest

from pbe.runtime.files import atomic_file, atomic_folder, digest_files, digest_folder, write_json


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "new" / "counts.json") as part:
        part.write_text("{}")
        assert not (tmp_path / "new" / "counts.json").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["counts.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_writer_overwrites_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".counts.part.json").write_text("left by a killed writer, and longer")
    with atomic_file(tmp_path / "counts.json") as part:
        part.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


def test_a_folder_replaces_the_old_one_when_the_block_ends(tmp_path: Path) -> None:
    old = tmp_path / "model"
    old.mkdir()
    (old / "stale").touch()
    with atomic_folder(old) as part:
        (part / "fresh").touch()
        assert (old / "stale").exists()
    assert [p.name for p in old.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    old = tmp_path / "model"
    old.mkdir()
    (old / "stale").touch()
    with pytest.raises(RuntimeError), atomic_folder(old) as part:  # noqa: PT012
        (part / "fresh").touch()
        raise RuntimeError
    assert [p.name for p in old.iterdir()] == ["stale"]
    assert list(tmp_path.iterdir()) == [old]


def test_json_is_the_same_bytes_for_the_same_payload(tmp_path: Path) -> None:
    write_json(tmp_path / "reports/a.json", {"b": 1, "a": 2})
    write_json(tmp_path / "reports/b.json", {"a": 2, "b": 1})
    assert (tmp_path / "reports/a.json").read_bytes() == (tmp_path / "reports/b.json").read_bytes()
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["a.json", "b.json"]


def test_digests_follow_contents_and_names(tmp_path: Path) -> None:
    for folder, name, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    a, b, c, d = (digest_folder(tmp_path / name) for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
    assert digest_files([tmp_path / "a/x", tmp_path / "d/x"]) != digest_files([tmp_path / "d/x", tmp_path / "a/x"])
