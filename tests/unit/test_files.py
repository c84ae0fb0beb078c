"""Files are whole or not there, and never overwritten."""

import errno
import os
from pathlib import Path

import pytest

from nsync.errors import InputError
from nsync.files import atomic_path, copied, numbered, remove_leftovers, write_atomic


def test_write_replaces_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_inside_keeps_the_old_file(tmp_path: Path, failure: type) -> None:
    path = tmp_path / "weights.safetensors"
    write_atomic(path, "good")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("torn")
            raise failure("half way")

    with pytest.raises(failure, match="half way"):
        fail_half_way()
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_the_data_is_on_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a new name with nothing behind it."""
    done, path = [], tmp_path / "state.safetensors"
    flush, rename = os.fsync, os.replace

    def seen_flush(handle: int) -> None:
        done.append(("flush", os.fstat(handle).st_ino))
        flush(handle)

    def seen_rename(old: Path, new: Path) -> None:
        done.append(("rename", str(old)))
        rename(old, new)

    monkeypatch.setattr("nsync.files.os.fsync", seen_flush)
    monkeypatch.setattr("nsync.files.os.replace", seen_rename)
    write_atomic(path, b"new")
    [(_, data), (_, temporary), (_, folder)] = done
    assert [what for what, _ in done] == ["flush", "rename", "flush"]
    assert (data, folder) == (path.stat().st_ino, tmp_path.stat().st_ino)
    assert Path(temporary).parent == tmp_path
    assert Path(temporary).name.startswith(".state.safetensors.")
    assert temporary.endswith(".part")  # what nobody lists as a file of weights


def test_full_disk_is_an_input_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_atomic(path, "good")
    with pytest.raises(InputError, match="No space left"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "good"


def test_a_name_that_is_too_long_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a shorter name than x+; got one of 300 bytes\. Shorten"):
        write_atomic(tmp_path / ("x" * 300), "")


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
    dotted = tmp_path / "sd1.5"
    dotted.mkdir()
    assert numbered(dotted).name == "sd1.5_00002"


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    left = [tmp_path / ".a.json.12345678.part", tmp_path / ".b.part"]
    kept = [tmp_path / "a.json", tmp_path / "mine.part", tmp_path / "deeper" / ".c.part"]
    for path in left + kept:
        path.touch()
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    remove_leftovers(tmp_path / "not" / "there")


def test_a_copy_takes_the_first_free_name_and_is_made_once(tmp_path: Path) -> None:
    file, place = tmp_path / "new.safetensors", tmp_path / "there" / "a.safetensors"
    file.write_text("new")
    assert copied(file, place) == place
    place.write_text("of another run")
    second = place.with_name("a_00002.safetensors")
    assert [copied(file, place), copied(file, place)] == [second, second]
    assert place.read_text() == "of another run"
    assert second.read_text() == "new"
    assert sorted(place.parent.iterdir()) == [place, second]
