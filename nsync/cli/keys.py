"""What the file of a command may say: its keys, by their paths, from a dataclass and its docs."""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

WORDS, PATHS = tuple[str, ...], tuple[Path, ...]
LISTS = (WORDS, PATHS)
"""The types of lists."""


class Arms(dict[str, dict[str, object]]):
    """Changes of a section's keys by the name of an arm: the type of a key that has no flag."""


_ENTRY = re.compile(r"    (\w+(?:, \w+)*): (.*)")
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    WORDS: "a list of texts",
    PATHS: "a list of paths",
    Arms: "keys of `settings` by the name of each arm",
}


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        path: "settings.steps".
        kind: bool, int, float, str, Path, one of `LISTS`, or `Arms`.
        default: the value where it is not given.
        told: what it is, in words.
        rule: its range, in words, or "".
    """

    path: str
    kind: Any
    default: object
    told: str
    rule: str = ""

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        return _EXPECTED[self.kind]

    def help(self) -> str:
        """The key in a line of `--help`."""
        default = self.default
        if isinstance(default, bool):
            shown = str(default).lower()
        elif isinstance(default, tuple):
            shown = " ".join(map(str, default))
        else:
            shown = "" if default is None else str(default)
        parts = [self.expected, *([self.rule] if self.rule else [])]
        parts += [f"default {shown}"] if shown else []
        return f"{self.told} ({'; '.join(parts)})"


def keys_of(default: object, prefix: str = "") -> Iterator[Key]:
    """The keys of a dataclass value, those of inner ones among them.

    Args:
        default: holds the defaults.
    """
    hints, told = typing.get_type_hints(type(default)), attributes(type(default))
    rules: dict[str, list[str]] = {}
    for name, rule, *_ in judgements(default):
        rules.setdefault(name, []).append(rule)
    for field in fields(default):
        value, path = getattr(default, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from keys_of(value, f"{path}.")
        else:
            kind, words = _plain(hints[field.name]), told[field.name]
            yield Key(path, kind, value, words, ", ".join(rules.get(field.name, [])))


def sections(default: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(path, value) of the dataclass and of all inside it; that of the whole is ""."""
    yield prefix.removesuffix("."), default
    for field in fields(default):
        value = getattr(default, field.name)
        if is_dataclass(value):
            yield from sections(value, f"{prefix}{field.name}.")


def judgements(value: object) -> list[tuple[str, str, object, bool]]:
    """(name, rule, value, whether it is kept) of what has rules; see `nsync.runs.judgements`."""
    return value.judgements() if hasattr(value, "judgements") else []


def attributes(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says under "Attributes:", by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.getdoc(kind).partition("Attributes:\n")[2].splitlines():
        if entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return {name: _without_marks(text) for name, text in found.items()}


def _without_marks(text: str) -> str:
    """Without what is for readers of the source: backquotes, and a sentence's own stop."""
    return text.replace("`", "").rstrip(".")


def _plain(hint: Any) -> Any:
    """The type of a key whose value may be missing."""
    if isinstance(hint, types.UnionType):
        [hint] = [one for one in typing.get_args(hint) if one is not type(None)]
    return hint
