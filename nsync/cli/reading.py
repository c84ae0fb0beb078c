"""A command's YAML file, and flags over it, as a dataclass value; everything wrong told at once."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..errors import InputError
from .keys import LISTS, PATHS, WORDS, Arms, Key, judgements, keys_of, sections

T = TypeVar("T")

_NULL = "tag:yaml.org,2002:null"
_SWITCH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


@dataclass
class Reading:
    """What was given, and what is wrong with it.

    Attributes:
        values: by the key's path.
        places: where each was given, in words ("line 3").
        problems: a line each.
        others: keys of other commands, which this one passes over.
    """

    file: Path | None = None
    values: dict[str, object] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)

    def is_anothers(self, path: str) -> bool:
        """Whether a key, or all below it, is another command's."""
        return any(one == path or one.startswith(f"{path}.") for one in self.others)

    def wrong(self, path: str, text: str, place: str = "") -> None:
        """Remember a problem of a key; its place is told where the key was given."""
        place = place or self.places.get(path, "")
        self.problems.append(f"{place}, {path}: {text}" if place else f"{path}: {text}")


def read(
    default: T,
    file: Path | None,
    flags: Mapping[str, str | list[str]],
    unknown: Sequence[str] = (),
    shared: Sequence[object] = (),
) -> T:
    """What a command is asked.

    Args:
        default: of every key; a dataclass value, in which `keys_of` finds the keys.
        file: YAML, or None. Paths in it are relative to its folder.
        flags: texts by the key's path; they stand over the file. Paths are relative to the working
            directory.
        unknown: flags that there are none of.
        shared: defaults of other commands, whose keys the file may have as well.

    Raises:
        InputError: the file cannot be read, or something is wrong with keys or values; it names
            every one by its path and line.
    """
    known = {key.path: key for key in keys_of(default)}
    found = Reading(file, others={key.path for one in shared for key in keys_of(one)} - set(known))
    if file is not None:
        _walk(found, _composed(file), known, "")
    for flag in unknown:
        found.problems.append(f"{flag}: no such flag{_near(flag, [f'--{path}' for path in known])}")
    for path, given in flags.items():
        found.places[path] = f"--{path}"
        _take(found, known[path], given, Path.cwd())
    made = _filled(default, found.values)
    _judge(found, made)
    if found.problems:
        name = file.name if file else "the command line"
        count = len(found.problems)
        listed = "".join(f"\n  {problem}" for problem in sorted(found.problems, key=_line))
        raise InputError(name, "keys and values as `--help` lists them", f"{count} wrong:{listed}")
    return made


def _composed(file: Path) -> yaml.MappingNode:
    """The file's YAML, with the lines of everything in it.

    Raises:
        InputError: no such file, or no YAML, or no mapping.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(str(file), "a YAML file that can be read", _reason(error)) from error
    if node is None:  # an empty file
        return yaml.MappingNode("tag:yaml.org,2002:map", [])
    if not isinstance(node, yaml.MappingNode):
        raise InputError(str(file), "a YAML file of keys and values", f"a {node.id} on line 1")
    return node


def _line(problem: str) -> float:
    """The line of the file that a problem is told of; without one, after all of these."""
    line = re.match(r"line (\d+),", problem)
    return int(line[1]) if line else math.inf


def _reason(error: Exception) -> str:
    """Why a file was not read, in one line; of YAML with the place that it stumbled over."""
    if isinstance(error, OSError):
        return error.strerror or "nothing"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def _walk(found: Reading, node: yaml.Node, known: Mapping[str, Key], prefix: str) -> None:
    here = {path[len(prefix) :].partition(".")[0] for path in known if path.startswith(prefix)}
    seen: set[str] = set()
    for key, value in node.value:
        path, place = f"{prefix}{key.value}", f"line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.value not in here:
            if isinstance(key, yaml.ScalarNode) and found.is_anothers(path):
                continue
            found.wrong(path, f"no such key{_near(str(key.value), sorted(here))}", place)
        elif key.value in seen:
            found.wrong(path, "given twice", place)
        elif path in known:
            found.places[path] = place
            if known[path].kind is Arms:
                _take_arms(found, path, value, known)
            else:
                _take_node(found, known[path], value)
        elif isinstance(value, yaml.MappingNode):
            _walk(found, value, known, f"{path}.")
        elif value.tag != _NULL:
            inner = ", ".join(sorted(one for one in known if one.startswith(f"{path}.")))
            found.wrong(path, f"expected keys below it: {inner}", place)
        seen.add(str(key.value))


def _take_arms(found: Reading, path: str, node: yaml.Node, known: Mapping[str, Key]) -> None:
    """Arms, each with keys of the section `settings`; what is wrong in one is told by its path."""
    arms = Arms()
    for name, changes in node.value if isinstance(node, yaml.MappingNode) else []:
        prefix, own = f"{path}.{name.value}.", Reading(found.file, problems=found.problems)
        if str(name.value) in arms:
            found.wrong(prefix[:-1], "given twice", f"line {name.start_mark.line + 1}")
            continue
        inner = {one.removeprefix("settings."): key for one, key in known.items()}
        keys = {
            f"{prefix}{one}": replace(key, path=f"{prefix}{one}")
            for one, key in inner.items()
            if f"settings.{one}" in known
        }
        if isinstance(changes, yaml.MappingNode):
            _walk(own, changes, keys, prefix)
        elif changes.tag != _NULL:
            found.wrong(prefix[:-1], "expected keys of `settings`", found.places[path])
        arms[str(name.value)] = {key[len(prefix) :]: value for key, value in own.values.items()}
        found.places |= own.places
    found.values[path] = arms


def _take_node(found: Reading, key: Key, node: yaml.Node) -> None:
    folder = found.file.resolve().parent
    if isinstance(node, yaml.SequenceNode) and key.kind in LISTS:
        if all(isinstance(one, yaml.ScalarNode) for one in node.value):
            _take(found, key, [one.value for one in node.value], folder)
            return
    elif isinstance(node, yaml.ScalarNode) and key.kind not in LISTS:
        if node.tag == _NULL:
            found.wrong(key.path, f"expected {key.expected}; got nothing")
        elif node.style in ("'", '"') and key.kind in (bool, int, float):
            found.wrong(key.path, f"expected {key.expected}; got the text {node.value!r}")
        else:
            _take(found, key, node.value, folder)
        return
    kinds = {"mapping": "keys and values", "sequence": "a list", "scalar": "a single value"}
    found.wrong(key.path, f"expected {key.expected}; got {kinds[node.id]}")


def _take(found: Reading, key: Key, given: str | list[str], folder: Path) -> None:
    try:
        found.values[key.path] = _value(key, given, folder)
    except (KeyError, ValueError):
        found.wrong(key.path, f"expected {key.expected}; got {given!r}")


def _value(key: Key, given: Any, folder: Path) -> object:
    """The value in a text, by the key's own type: 1e-4 is a number, whatever YAML says."""
    if key.kind is bool:
        return _SWITCH[given.lower()]
    if key.kind is Path:
        return _path(given, folder)
    if key.kind == PATHS:
        return tuple(_path(one, folder) for one in given)
    return tuple(given) if key.kind == WORDS else key.kind(given)


def _path(text: str, folder: Path) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return folder / Path(text).expanduser()


def _filled(default: T, values: Mapping[str, object], prefix: str = "") -> T:
    changes = {}
    for one in fields(default):
        path, value = f"{prefix}{one.name}", getattr(default, one.name)
        if is_dataclass(value):
            changes[one.name] = _filled(value, values, f"{path}.")
        elif path in values:
            changes[one.name] = values[path]
    return replace(default, **changes)


def _judge(found: Reading, made: object) -> None:
    """What only whole values can be asked: each section's own rules, then the command's."""
    for path, section in sections(made):
        for name, rule, value, good in judgements(section):
            if not good:
                full = f"{path}.{name}".removeprefix(".")
                found.wrong(full, f"expected {rule}; got {value!r}")
    for path, text in made.problems() if hasattr(made, "problems") else ():
        found.wrong(path, text)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; is it {near[0]}?" if near else f"; there are {', '.join(known)}"
