"""A study on disk: its facts, its records, and what is shown of its cells.

study.json                  everything that changes results, as the records were made
records.jsonl               a line per record, all of a cell at once
shared/                     the base's pictures and the negatives, used by many cells
pictures/<style>/<seed>/    reference.png, and <adapter>/<arm>.png: the first 8 held-out captions
logs/<style>/<seed>/        <adapter>/<arm>.jsonl: the log of the run, a record per step
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nsync.errors import InputError
from nsync.files import write_atomic
from nsync.settings import TrainSettings

from .study import Cell, Study

Record = Mapping[str, object]


def shared_folder(folder: Path) -> Path:
    """Of what is used by many cells."""
    return folder / "shared"


def strip_file(folder: Path, cell: Cell) -> Path:
    """The cell's first pictures at its last look, side by side."""
    return folder / "pictures" / _place(cell) / f"{cell.arm}.png"


def reference_file(folder: Path, style: str, seed: int) -> Path:
    """True renders of the same captions."""
    return folder / "pictures" / style / str(seed) / "reference.png"


def keep_log(folder: Path, cell: Cell, log: Iterable[Record]) -> None:
    """Write the log of a cell's run."""
    write_atomic(folder / "logs" / _place(cell) / f"{cell.arm}.jsonl", _lines(log))


def _place(cell: Cell) -> Path:
    return Path(cell.style) / str(cell.seed) / cell.adapter


class Records:
    """The records of a study; one process writes them.

    What a killed process left torn, or of a cell without all its steps, is taken out at the start.

    Raises:
        InputError: the folder has records of a study by other settings.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self._file, self._study = folder / "records.jsonl", study
        check_same_study(study, folder)
        found = read(self._file)
        whole = _whole(study, found)
        if self._file.exists():
            write_atomic(self._file, _lines(whole))
        self.done = {_cell(record) for record in whole}

    def add(self, records: Sequence[Record]) -> None:
        """Append the records of a cell; on the disk when this returns."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_lines(records))
            file.flush()
            os.fsync(file.fileno())
        self.done |= {_cell(record) for record in records}


def read(file: Path) -> list[dict[str, object]]:
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


def check_same_study(study: Study, folder: Path) -> None:
    """Refuse to add to the records of a study by other settings; remember those of a new one.

    Arms, styles and seeds may be added: the cells that are there stay what they were.

    Raises:
        InputError: everything that differs is named by its path.
    """
    file, facts = folder / "study.json", json.loads(json.dumps(study.facts()))
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for arm in before["arms"].values():  # settings that came later had their defaults
            arm["settings"] = TrainSettings().as_dict() | arm["settings"]
        kept = {name: arm for name, arm in before["arms"].items() if name not in facts["arms"]}
        facts["arms"] |= kept
        shown = {**before, "arms": {**facts["arms"], **before["arms"]}}
        if lines := _differences("", shown, facts):
            raise InputError(
                study.name,
                f"the settings that the records in {folder} were made by",
                "other ones:\n" + "\n".join(f"  {line}" for line in lines),
                "\nSet them back, give the study another name, or move that folder away.",
            )
    write_atomic(file, json.dumps(facts, indent=1) + "\n")


def _differences(path: str, before: object, now: object) -> list[str]:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"`{path}` was {before!r}, is {now!r}"]
    lines = []
    for name in sorted({*before, *now}):
        here = f"{path}.{name}" if path else name
        lines += _differences(here, before.get(name), now.get(name))
    return lines


def _whole(study: Study, records: Sequence[dict]) -> list[dict]:
    """Records of cells that have all their steps, and each record once."""
    steps: dict[Cell, set[int]] = {}
    for record in records:
        steps.setdefault(_cell(record), set()).add(record["step"])
    whole = {cell for cell, seen in steps.items() if seen == set(study.steps_of(cell))}
    return [record for record in records if _cell(record) in whole]


def _cell(record: Record) -> Cell:
    return Cell(*(record[name] for name in ("style", "adapter", "arm", "seed")))


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
