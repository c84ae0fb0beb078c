"""A style set as a file: where its pictures lie and what is said of them, so that a training can
be gone on with from another door (see `nsync.runs.recipe`)."""

import json
from pathlib import Path

from ..errors import InputError
from ..files import write_atomic
from ..style_set import StyleItem, StyleSet

FORMAT = 1


def write_set(path: Path, style_set: StyleSet) -> None:
    """Write the set, whole or not at all. Pictures that came from a socket have no file.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    told = {
        "format": FORMAT,
        "token": style_set.token,
        "template": style_set.template,
        "resolution": style_set.resolution,
        "base": style_set.base,
        "items": [_told(item) for item in style_set.items],
        "others": [_told(item) for item in style_set.others],
    }
    write_atomic(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_set(path: Path) -> StyleSet:
    """The set of a file that `write_set` has written.

    Raises:
        InputError: no such file, or none of a set; pictures that have no file, or are not there.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']!r}")
        items, others = ([_item(one) for one in told[name]] for name in ("items", "others"))
        words = {name: told[name] for name in ("token", "template", "resolution", "base")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError(path.name, f"a style set's listing of format {FORMAT}", got) from error
    _check_files(path, [*items, *others])
    return StyleSet(tuple(items), **words, others=tuple(others))


def _told(item: StyleItem) -> dict[str, object]:
    return {
        "name": item.name,
        "file": str(item.path.resolve()) if item.path else None,
        "caption": item.caption,
        "label": item.label,
        "negatives": [str(file.resolve()) for file in item.negatives],
    }


def _item(told: dict) -> StyleItem:
    return StyleItem(
        told["name"],
        told["caption"],
        told["label"],
        Path(told["file"]) if told["file"] else None,
        negatives=tuple(map(Path, told["negatives"])),
    )


def _check_files(path: Path, items: list[StyleItem]) -> None:
    if homeless := [item.name for item in items if item.path is None]:
        raise InputError(
            path.name,
            "pictures from files",
            f"{len(homeless)} that came from a socket of the graph, such as {homeless[0]}",
            "Save them to a folder with their captions, and train from that.",
        )
    files = [file for item in items for file in (item.path, *item.negatives)]
    if missing := [file for file in files if not file.is_file()]:
        got = f"{len(missing)} that are not there, such as {missing[0]}"
        raise InputError(path.name, "the pictures and negatives that it lists", got)
