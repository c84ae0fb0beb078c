"""Folders of pictures: what lies in them, and what points out of them."""

from collections.abc import Callable
from pathlib import Path

from .images import SUFFIXES

OnPicture = Callable[[int, int], None]
"""Called before each picture with (done, all); what it raises ends the work."""


def is_within(folder: Path, path: Path) -> bool:
    """Whether a path, links followed, lies in a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder and of the folders directly in it, sorted, without hidden ones.

    Broken links are among them, so that whoever reads the pictures can name them.
    """
    return [
        path
        for path in visible(folder)
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    ]


def visible(folder: Path) -> list[Path]:
    """What lies in a folder and in the folders directly in it, sorted; nothing hidden."""
    found = sorted((*folder.glob("*"), *folder.glob("*/*")))
    return [path for path in found if "/." not in f"/{path.relative_to(folder).as_posix()}"]
