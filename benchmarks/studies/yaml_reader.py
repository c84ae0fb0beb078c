"""Values read from a YAML file by their paths; everything that is wrong is told at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nsync.errors import InputError

Value = TypeVar("Value")

NOTHING: Mapping[str, str] = {}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


def read_yaml(file: Path) -> object:
    """What a file holds.

    Raises:
        InputError: it cannot be read as YAML, or has a key twice.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Once)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(file.name, "a YAML file", f"{type(error).__name__}: {error}") from error


class _Once(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error: of two arms one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({repr(key) for key in keys if keys.count(key) > 1}):
            line = node.start_mark.line + 1
            raise ValueError(f"twice in the mapping of line {line}: {', '.join(twice)}")
        return super().construct_mapping(node, deep)


@dataclass
class Reader:
    """Reads values by their paths and remembers what is wrong with them."""

    problems: list[str] = field(default_factory=list)

    def study(self, data: object) -> Any:
        """The study in what a file holds, as far as it is one; problems are remembered."""
        raise NotImplementedError

    def read(self, file: Path) -> Any:
        """The study that a file describes.

        Raises:
            InputError: it cannot be read as YAML, or is no study: every problem is named.
        """
        study = self.study(read_yaml(file))
        if self.problems:
            found = "".join(f"\n  {problem}" for problem in self.problems)
            raise InputError(file.name, "a study", f"{len(self.problems)} wrong:{found}\n")
        return study

    def wrong(self, path: str, expected: str, got: object) -> None:
        """Remember a problem; a number that YAML took for a word is explained."""
        hint = ""
        if isinstance(got, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", got):
            hint = f" (to YAML {got} is a word: write 5.0e-4 for 5e-4)"
        self.problems.append(f"`{path}`: expected {expected}; got {got!r}{hint}")

    def filled(
        self, path: str, given: object, defaults: Value, decided: Mapping[str, str]
    ) -> Value:
        """The dataclass value with what is given in the place of its defaults.

        Args:
            decided: fields that are not to be given, with the reason.
        """
        known = [one.name for one in fields(defaults) if one.name not in decided]
        if given is None or not self.known(path, given, known, decided):
            return defaults
        values = {}
        for name, value in given.items():
            if name in known:
                values[name] = self._typed(f"{path}.{name}", value, getattr(defaults, name))
        return replace(defaults, **values)

    def known(
        self, path: str, given: object, known: Sequence[str], decided: Mapping[str, str] = NOTHING
    ) -> bool:
        """Whether these are keys and values; those that are not known are remembered."""
        if not isinstance(given, Mapping):
            self.wrong(path, f"keys among {', '.join(known)}", given)
            return False
        for name in given:
            if name in decided:
                self.problems.append(f"`{path}.{name}`: not to be given, {decided[name]}")
            elif name not in known:
                self.problems.append(f"`{path}.{name}`: unknown; there are {', '.join(known)}")
        return True

    def _typed(self, path: str, value: object, default: object) -> object:
        if is_dataclass(default):
            return self.filled(path, value, default, {})
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            if _is_list(value) and all(type(one) is kind for one in value):
                return tuple(value)
            expected = "a list of words" if kind is str else "a list of whole numbers"
        elif isinstance(default, float) and _is_number(value):
            return float(value)
        elif type(value) is type(default):
            return value
        else:
            expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
                type(default), "a text"
            )
        self.wrong(path, expected, value)
        return default

    def name(self, path: str, value: object) -> str:
        """A name of letters, digits, spaces and . _ -; "?" where it is none."""
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        self.wrong(path, "a name of letters, digits, spaces and . _ -", value)
        return "?"

    def choice(self, path: str, value: object, choices: Sequence[str]) -> str:
        """One of the choices; the first where it is none."""
        if value not in choices:
            self.wrong(path, f"one of {', '.join(choices)}", value)
            return choices[0]
        return value

    def several(self, path: str, values: object, choices: Sequence[str]) -> tuple[str, ...]:
        """A list of some of the choices, each once."""
        if not _is_list(values) or not values or len(set(map(str, values))) < len(values):
            self.wrong(path, f"a list, each once, of {', '.join(choices)}", values)
            return ()
        return tuple(self.choice(path, value, choices) for value in values)

    def numbers(self, path: str, values: object, least: int) -> tuple[int, ...]:
        """A list of whole numbers from `least`, each once."""
        good = _is_list(values) and values and all(type(one) is int for one in values)
        if not good or min(values) < least or len(set(values)) < len(values):
            self.wrong(path, f"a list of whole numbers from {least}, each once", values)
            return (least,)
        return tuple(values)

    def count(self, data: Mapping[str, object], name: str, least: int, usual: int) -> int:
        """A whole number from `least` by its name, the usual one where none is given."""
        return self.whole(name, data.get(name, usual), least)

    def whole(self, path: str, value: object, least: int) -> int:
        """A whole number from `least`."""
        if type(value) is not int or value < least:
            self.wrong(path, f"a whole number from {least}", value)
            return least
        return value


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def complaint(check: Callable[[], None]) -> str:
    """What a check has to say, or nothing."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""
