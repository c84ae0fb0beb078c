"""Files are whole or not there, and never overwritten."""

import errno
from pathlib import Path

import pytest

from nsync.errors import InputError
from nsync.files import atomic_path, numbered, write_atomic


def test_write_replaces_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_failure_inside_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_atomic(path, "good")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("torn")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_an_input_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_atomic(path, "good")
    with pytest.raises(InputError, match="No space left"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "good"


def test_numbered_takes_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    assert numbered(path) == path
    path.touch()
    assert numbered(path).name == "style_00002.safetensors"
    (tmp_path / "style_00002.safetensors").touch()
    assert numbered(path).name == "style_00003.safetensors"
    folder = tmp_path / "run"
    folder.mkdir()
    assert numbered(folder).name == "run_00002"
