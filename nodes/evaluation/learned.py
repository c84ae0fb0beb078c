"""What the lines of a comparison name: LoRAs, embeddings, and checkpoints of watched runs."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import folder_paths

from ...nsync.errors import InputError
from ..folders import run_folder

EMBEDDING_LINE, RUN_LINE = "embedding:", "run:"
_CHECKPOINT = "lora.safetensors"


def checked(lines: str) -> list[str]:
    """The LoRAs, embeddings and checkpoints that the lines name, each once.

    Raises:
        InputError: a line names no file.
    """
    names = _names(lines)
    if missing := [name for name in names if not _is_there(file_of(name))]:
        raise InputError(
            "loras",
            "names of LoRA files as Load LoRA lists them, one a line (* stands for any letters), "
            "embedding:name, or run:name for a watched run's checkpoints",
            ", ".join(map(repr, missing)),
            "Press R in the page if a file is new.",
        )
    return names


def fingerprint(lines: str) -> str:
    """Changes when a file that a line names is written anew."""
    files = filter(_is_there, map(file_of, _names(lines)))
    return ",".join(f"{file} {file.stat().st_mtime_ns}" for file in files)


def titles(names: Sequence[str]) -> list[str]:
    """What each arm is called: the name without kind, folder and ending, or all of it where that
    would be another's as well."""
    short = list(map(_short, names))
    return [
        one if short.count(one) == 1 and one not in names else name
        for one, name in zip(short, names, strict=True)
    ]


def file_of(name: str) -> Path | None:
    """The file of a LoRA or embedding that the host lists, or of a run's checkpoint; nothing
    else's."""
    if name.startswith(RUN_LINE):
        run, _, step = name.removeprefix(RUN_LINE).partition("/")
        return run_folder(run) / "scores" / step / _CHECKPOINT
    if name.startswith(EMBEDDING_LINE):
        return _embedding(name.removeprefix(EMBEDDING_LINE))
    if name not in folder_paths.get_filename_list("loras"):
        return None
    return Path(folder_paths.get_full_path_or_raise("loras", name))


def _names(lines: str) -> list[str]:
    """What the lines name; a line that names nothing stays as it is."""
    known = folder_paths.get_filename_list("loras")
    names = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        if line.startswith(RUN_LINE):
            folders = (run_folder(line.removeprefix(RUN_LINE)) / "scores").glob("step_*")
            kept = sorted(place.name for place in folders if (place / _CHECKPOINT).exists())
            names += [f"{line}/{place}" for place in kept] or [line]
        else:
            names += [name for name in known if fnmatchcase(name, line)] or [line]
    return list(dict.fromkeys(names))


def _short(name: str) -> str:
    for kind in (RUN_LINE, EMBEDDING_LINE):
        if name.startswith(kind):
            return name.removeprefix(kind)
    return Path(name).stem


def _embedding(name: str) -> Path | None:
    listed = folder_paths.get_filename_list("embeddings")
    files = (file for file in listed if Path(file).with_suffix("").as_posix() == name)
    found = next(files, None)
    return found and Path(folder_paths.get_full_path_or_raise("embeddings", found))


def _is_there(file: Path | None) -> bool:
    return file is not None and file.is_file()
