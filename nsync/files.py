"""Writing files that are whole or not there: a reader never meets half a file."""

import errno
import filecmp
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path

from .errors import InputError

_TEMPORARY = ".part"  # no suffix that anybody lists


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends without an error.

    The folder is made where it is missing. The data is flushed to the disk before the rename and
    the rename before the return, so that a power cut leaves the old file or the new one.

    Raises:
        InputError: the disk is full or the place cannot be written; an old file is still whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary, os.O_RDWR)
        os.replace(temporary, path)
        if os.name != "nt":  # Windows cannot open a folder, and needs no flush of it
            _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        raise _disk_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing, and a file in it for a moment.

    Raises:
        InputError: one of them cannot be made.
    """
    probe = folder / f".{uuid.uuid4().hex[:8]}{_TEMPORARY}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _disk_error(folder, error) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing into `folder`."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def numbered(path: str | Path) -> Path:
    """`path` itself where it is free, else the first free `name_00002.ext`, `name_00003.ext`.

    What is there as a folder has no extension: a run may be called `sd1.5`.
    """
    return next(name for name in _names(Path(path)) if not name.exists())


def copied(file: Path, path: Path) -> Path:
    """A copy of the file at `path`, or at the first of its numbered names that is free; its path.

    An equal file that is met on the way is taken for the copy: asked again, there is none more.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    there = takewhile(Path.exists, _names(path))
    equal = (name for name in there if filecmp.cmp(file, name, shallow=False))
    if found := next(equal, None):
        return found
    place = numbered(path)
    write_atomic(place, file.read_bytes())
    return place


def _names(path: Path) -> Iterator[Path]:
    yield path
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    yield from (path.with_name(f"{stem}_{number:05}{suffix}") for number in count(2))


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    if error.errno == errno.ENAMETOOLONG:
        got = f"one of {len(path.name.encode())} bytes"
        return InputError("output", f"a shorter name than {path.name}", got, "Shorten the name.")
    return InputError(
        "output",
        f"room and permission to write {path}",
        f"{type(error).__name__}: {reason}",
        "Free some space or choose another place; files written before are untouched.",
    )
