"""Hashes of large files are kept, and folders appear whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from remask.errors import BackendError
from remask.models.backbone import cache_folder
from remask.models.backbone.cache_folder import hash_file, make_folder


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large and was written long ago."""
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_folder, "LARGE_FILE_BYTES", 4)
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    os.utime(path, (1, 1))
    return path


def test_hash_of_a_large_file_is_kept_until_the_file_changes(large: Path, tmp_path: Path) -> None:
    assert hash_file(large) == hashlib.sha256(b"first").hexdigest()
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    kept.write_text("0" * 64)
    assert hash_file(large) == "0" * 64
    kept.write_text("cut")  # not a hash
    assert hash_file(large) == hashlib.sha256(b"first").hexdigest()
    for content, time in ((b"other", 2), (b"longer one", 2)):
        large.write_bytes(content)
        os.utime(large, (time, time))
        assert hash_file(large) == hashlib.sha256(content).hexdigest()


def test_hash_of_a_file_that_was_just_written_is_not_kept(large: Path, tmp_path: Path) -> None:
    large.write_bytes(b"fresh")
    assert hash_file(large) == hashlib.sha256(b"fresh").hexdigest()
    assert not (tmp_path / "cache" / "hashes").exists()


def test_hash_needs_no_cache_folder(large: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert hash_file(large) == hashlib.sha256(b"first").hexdigest()


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with make_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"
    with pytest.raises(ValueError, match="stop"), make_folder(tmp_path / "other"):
        raise ValueError("stop")
    with make_folder(tmp_path / "made") as folder:  # another process was faster
        (folder / "a").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "1"
    with pytest.raises(BackendError, match="REMASK_CACHE"), make_folder(tmp_path / "made" / "a" / "b"):
        pass
