"""The records of a study on disk, JSON lines, and what they were made by.

study.json       everything that changes results, as the records were made
records.jsonl    a line per record, all of a cell at once
"""

import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from nsync.errors import InputError
from nsync.files import write_atomic

Record = dict[str, object]

FACTS, RECORDS = "study.json", "records.jsonl"


class RecordFile:
    """A file of records; one process writes it.

    What a killed process left torn, or of a cell without all its records, is taken out at the
    start.

    Args:
        file: it is made where it is missing.
        cell_of: whose a record is.
        whole: of the records of a file those of cells that have all of theirs.

    Attributes:
        done: cells whose records are there.
    """

    def __init__(
        self,
        file: Path,
        cell_of: Callable[[Record], Hashable],
        whole: Callable[[Sequence[Record]], Sequence[Record]],
    ) -> None:
        self._file, self._cell_of = file, cell_of
        kept = whole(read(file))
        if file.exists():
            write_atomic(file, as_lines(kept))
        self.done = {cell_of(record) for record in kept}

    def add(self, records: Sequence[Record]) -> None:
        """Append the records of a cell; on the disk when this returns."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(as_lines(records))
            file.flush()
            os.fsync(file.fileno())
        self.done |= {self._cell_of(record) for record in records}


def read(file: Path) -> list[Record]:
    """The records of a file, as far as its lines are whole; none where there is no file.

    Raises:
        InputError: a line before the last is no record.
    """
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = text.split("\n")[:-1]  # after the last line's end there is nothing, or a torn line
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        remedy = "Move the file away, or mend it."
        raise InputError(file.name, "a JSON object a line", str(error), remedy) from error


def as_lines(records: Iterable[Mapping[str, object]]) -> str:
    """Records as a file holds them."""
    return "".join(json.dumps(record) + "\n" for record in records)


def check_same_facts(name: str, folder: Path, before: object, now: object) -> None:
    """Refuse to add to the records of a study by other settings.

    Args:
        name: of the study.
        folder: where its records are, for the error.

    Raises:
        InputError: everything that differs is named by its path.
    """
    if lines := _differences("", before, now):
        raise InputError(
            name,
            f"the settings that the records in {folder} were made by",
            "other ones:\n" + "\n".join(f"  {line}" for line in lines),
            "\nSet them back, give the study another name, or move that folder away.",
        )


def copy_records(source: Path, target: Path) -> None:
    """The records and what they were made by; nothing where there are none."""
    for name in (FACTS, RECORDS):
        if (source / name).is_file():
            write_atomic(target / name, (source / name).read_bytes())


def _differences(path: str, before: object, now: object) -> list[str]:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"`{path}` was {before!r}, is {now!r}"]
    lines = []
    for name in sorted({*before, *now}):
        here = f"{path}.{name}" if path else name
        lines += _differences(here, before.get(name), now.get(name))
    return lines
