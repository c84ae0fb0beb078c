"""Folders that a workflow may name: those under the host's input and datasets folders."""

import hashlib
import os
from pathlib import Path

import folder_paths

from ..nsync.errors import InputError
from ..nsync.names import check_name
from ..nsync.pictures.captions import caption_path
from ..nsync.pictures.folder import is_within, pictures_in
from ..nsync.runs.recipe import run_place

RULE = "a folder under the host's input or datasets folder, as `input/...` or `datasets/...`"


def folder_options() -> list[str]:
    """Every visible folder under input and datasets, as `input/...` or `datasets/...`."""
    return sorted({name for key in ("input", "datasets") for name in _names(key)})


def resolve_folder(value: str, name: str = "folder") -> Path:
    """The existing folder that a workflow names.

    Raises:
        InputError: it is not under input or datasets (`..`, absolute, a link out), or not there.
    """
    key, *inner = value.replace("\\", "/").split("/")
    if key not in ("input", "datasets") or not any(inner) or ".." in inner or "\0" in value:
        raise InputError(name, RULE, repr(value), "Put the pictures there and choose it again.")
    places = [(root, root.joinpath(*filter(None, inner))) for root in _roots(key)]
    found = [(root, place) for root, place in places if place.is_dir()]
    if not found:
        raise InputError(name, RULE, f"{value!r}, which is not there", "Refresh, choose again.")
    root, place = found[0]
    if not is_within(root, place):
        remedy = "Copy the pictures there instead of linking to them."
        raise InputError(name, RULE, f"{value!r}, a link that points out of it", remedy)
    return place


def folder_problem(value: str | None) -> bool | str:
    """What `validate_inputs` answers for a folder: True, or the error's text."""
    try:
        if value is not None:  # linked: known only when the workflow runs
            resolve_folder(value)
    except InputError as error:
        return str(error)
    return True


def folder_fingerprint(value: str) -> str:
    """Changes when a picture or caption of the folder comes, goes or is written to."""
    seen = hashlib.sha256()
    for picture in pictures_in(resolve_folder(value)):
        for path in (picture, caption_path(picture)):
            if path.exists():
                stat = path.stat()
                seen.update(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode())
    return seen.hexdigest()


def run_folder(name: str) -> Path:
    """The folder of the run of this name.

    Raises:
        InputError: it is no name.
    """
    return run_place(Path(folder_paths.get_output_directory()), check_name(name))


def _roots(key: str) -> list[Path]:
    if key == "input":
        return [Path(folder_paths.get_input_directory())]
    # Older hosts have no datasets folder.
    known = folder_paths.folder_names_and_paths.get("datasets", ([], set()))
    return [Path(root) for root in known[0]]


def _names(key: str) -> list[str]:
    return [
        "/".join((key, *(Path(parent) / name).relative_to(root).parts))
        for root in _roots(key)
        for parent, folders, _ in os.walk(root)
        for name in _visible(folders)
    ]


def _visible(folders: list[str]) -> list[str]:
    folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk obeys this list
    return folders
