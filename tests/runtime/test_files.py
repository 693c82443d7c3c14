"""A file is there whole or not at all."""

import pytest

from pbe.runtime import files
from pbe.runtime.files import atomic_file


def test_the_file_appears_when_the_block_ends(tmp_path):
    with atomic_file(tmp_path / "new" / "counts.json") as part:
        part.write_text("{}")
        assert not (tmp_path / "new" / "counts.json").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["counts.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "counts.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_overwritten(tmp_path):
    (tmp_path / ".counts.part.json").write_text("left by a killed writer, and longer")
    with atomic_file(tmp_path / "counts.json") as part:
        part.write_text("new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["new"]


def test_the_digest_of_code_changes_with_any_of_its_files_and_with_no_other(tmp_path, monkeypatch):
    package = tmp_path / "pbe"
    (package / "method").mkdir(parents=True)
    for name in ("files.py", "method/a.py", "method/b.py", "other.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.setattr(files, "__file__", str(package / "files.py"))
    before = files.digest_code("method", "files.py")
    (package / "other.py").write_text("x = 2\n")
    assert files.digest_code("method", "files.py") == before
    (package / "method/b.py").write_text("x = 2\n")
    assert files.digest_code("method", "files.py") != before
