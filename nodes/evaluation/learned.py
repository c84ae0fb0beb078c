"""What the lines of a comparison name: LoRAs, embeddings, and checkpoints of watched runs."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import folder_paths

from ...nsync.errors import InputError
from ...nsync.trained import EMBEDDING, LORA
from ..folders import run_folder

EMBEDDING_LINE, RUN_LINE = "embedding:", "run:"


def checked(lines: str) -> list[str]:
    """The LoRAs, embeddings and checkpoints that the lines name, each once.

    Raises:
        InputError: a line names no file.
    """
    names = _names(lines)
    if missing := [name for name in names if not files_of(name)]:
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
    files = (file for name in _names(lines) for file in files_of(name).values())
    return ",".join(f"{file} {file.stat().st_mtime_ns}" for file in files)


def titles(names: Sequence[str]) -> list[str]:
    """What each arm is called: the name without kind, folder and ending, or all of it where that
    would be another's as well."""
    short = list(map(_short, names))
    return [
        one if short.count(one) == 1 and one not in names else name
        for one, name in zip(short, names, strict=True)
    ]


def files_of(name: str) -> dict[str, Path]:
    """The files that are there, by kind: of a LoRA or embedding that the host lists, or of a run's
    checkpoint, which may hold both; nothing else's."""
    if name.startswith(RUN_LINE):
        run, _, step = name.removeprefix(RUN_LINE).partition("/")
        place = run_folder(run) / "scores" / step
        files = {kind: place / f"{kind}.safetensors" for kind in (LORA, EMBEDDING)}
    elif name.startswith(EMBEDDING_LINE):
        files = {EMBEDDING: _embedding(name.removeprefix(EMBEDDING_LINE))}
    else:
        listed = name in folder_paths.get_filename_list("loras")
        files = {LORA: folder_paths.get_full_path("loras", name) if listed else None}
    return {kind: Path(file) for kind, file in files.items() if file and Path(file).is_file()}


def _names(lines: str) -> list[str]:
    """What the lines name; a line that names nothing stays as it is."""
    known = folder_paths.get_filename_list("loras")
    names = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        if line.startswith(RUN_LINE):
            folders = (run_folder(line.removeprefix(RUN_LINE)) / "scores").glob("step_*")
            kept = sorted(f"{line}/{place.name}" for place in folders)
            names += list(filter(files_of, kept)) or [line]
        else:
            names += [name for name in known if fnmatchcase(name, line)] or [line]
    return list(dict.fromkeys(names))


def _short(name: str) -> str:
    for kind in (RUN_LINE, EMBEDDING_LINE):
        if name.startswith(kind):
            return name.removeprefix(kind)
    return Path(name).stem


def _embedding(name: str) -> str | None:
    listed = folder_paths.get_filename_list("embeddings")
    files = (file for file in listed if Path(file).with_suffix("").as_posix() == name)
    found = next(files, None)
    return found and folder_paths.get_full_path("embeddings", found)
