"""Exported files appear whole, and never over a file that is there."""

from pathlib import Path

import pytest

from remask.errors import ConfigError
from remask.files import draft, write


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already.*--force"):
        write(path, "new")
    assert path.read_text() == "mine"
    write(path, "new", force=True)
    assert path.read_text() == "new"
    write(path, b"\xff", force=True)
    assert path.read_bytes() == b"\xff"


def test_nothing_is_left_behind_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "no such folder" / "p.md", "new")
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "folder.md", "new", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.md"]


def test_a_draft_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_text("old")
    for error, raised in ((RuntimeError("no"), RuntimeError), (OSError("full"), ConfigError)):
        with pytest.raises(raised, match=r"no|p\.md cannot be written: full"), draft(path) as made:
            made.write_text("half")
            raise error
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["p.md"]
    with draft(path) as made:
        made.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o644


def test_a_draft_keeps_the_permissions_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.write_text("old")
    path.chmod(0o600)
    write(path, "new", force=True)
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600
