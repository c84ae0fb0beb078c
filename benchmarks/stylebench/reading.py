"""Reading the records of a study: JSON lines, one measured cell at one step each."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from nsync.errors import InputError

Record = dict[str, object]
"""With the fields that are checked here; `cores` and `fell_apart` may be there or not."""

_TEXTS = ("study", "style", "adapter", "arm")
_COUNTS = ("seed", "step", "positives_seen", "pictures_seen", "passes")
_SHARES = ("style_hit", "content")  # of which a root is taken
_REMEDY = "Remove the line, and let the study measure that cell again."


def read_records(path: Path) -> list[Record]:
    """The records of a file, checked, in its order; empty lines are passed over.

    Raises:
        InputError: no such file, no records, a damaged line, a cell measured twice at one step, or
            records of more than one study.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(
            "records", f"the records of a study at {path}", type(error).__name__, "Run the study."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("records", f"text as UTF-8 in {path}", str(error)) from error
    lined = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    records = [_parsed(line, f"{path.name}, line {number}") for number, line in lined]
    _check_together(path, [number for number, _ in lined], records)
    return records


def _parsed(line: str, name: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            name, "a whole JSON object", f"{line[:40]!r} ({error})", _REMEDY
        ) from error
    if not isinstance(record, dict):
        raise InputError(name, "a JSON object", f"{line[:40]!r}", _REMEDY)
    _check_fields(record, name)
    return record


def _check_fields(record: Record, name: str) -> None:
    rules = [(field, _is_text, "a text") for field in _TEXTS]
    rules += [(field, _is_count, "a whole number, at least 0") for field in _COUNTS]
    rules += [("seconds", _is_number, "a finite number"), ("metrics", _is_metrics, _METRICS_RULE)]
    for field, holds, rule in rules:
        if field not in record:
            raise InputError(name, f"`{field}`: {rule}", "nothing", _REMEDY)
        if not holds(record[field]):
            raise InputError(name, f"`{field}`: {rule}", f"{record[field]!r}"[:80], _REMEDY)


_METRICS_RULE = "an object of finite numbers or null by metric, shares in 0..1"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_metrics(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    known = {name: number for name, number in value.items() if number is not None}
    shares = [known[name] for name in _SHARES if name in known]
    return all(map(_is_number, known.values())) and all(0 <= share <= 1 for share in shares)


def _check_together(path: Path, numbers: Sequence[int], records: Sequence[Record]) -> None:
    if not records:
        raise InputError("records", f"at least one record in {path}", "none", "Run the study.")
    first: dict[tuple[object, ...], int] = {}
    fields = ("style", "adapter", "arm", "seed", "step")
    for number, record in zip(numbers, records, strict=True):
        name = f"{path.name}, line {number}"
        if record["study"] != records[0]["study"]:
            wanted = f"records of the study {records[0]['study']!r} as in the lines before"
            raise InputError(name, wanted, repr(record["study"]), "Give each study its own file.")
        key = tuple(record[field] for field in fields)
        if key in first:
            got = f"{', '.join(map(str, key))} as in line {first[key]}"
            raise InputError(name, "each cell once at each step", got, "Remove one of the two.")
        first[key] = number
