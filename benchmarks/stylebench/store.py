"""A study on disk: its facts, its records, and what is shown of its cells.

study.json                  everything that changes results, as the records were made
records.jsonl               a line per record, all of a cell at once
shared/                     the base's pictures and the negatives, used by many cells
pictures/<style>/<seed>/    reference.png, and <adapter>/<arm>.png: the first 8 held-out captions
logs/<style>/<seed>/        <adapter>/<arm>.jsonl: the log of the run, a record per step
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from nsync.files import write_atomic
from nsync.settings import TrainSettings

from ..studies.records import FACTS, RECORDS, Record, RecordFile, as_lines, check_same_facts
from .study import Cell, Study


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
    write_atomic(folder / "logs" / _place(cell) / f"{cell.arm}.jsonl", as_lines(log))


def _place(cell: Cell) -> Path:
    return Path(cell.style) / str(cell.seed) / cell.adapter


class Records(RecordFile):
    """The records of a study; see `studies.records.RecordFile`.

    Raises:
        InputError: the folder has records of a study by other settings.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        check_same_study(study, folder)
        super().__init__(folder / RECORDS, _cell, partial(_whole, study))


def check_same_study(study: Study, folder: Path) -> None:
    """Refuse to add to the records of a study by other settings; remember those of a new one.

    Arms, styles and seeds may be added: the cells that are there stay what they were.

    Raises:
        InputError: everything that differs is named by its path.
    """
    file, facts = folder / FACTS, json.loads(json.dumps(study.facts()))
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for arm in before["arms"].values():  # settings that came later had their defaults
            arm["settings"] = TrainSettings().as_dict() | arm["settings"]
        kept = {name: arm for name, arm in before["arms"].items() if name not in facts["arms"]}
        facts["arms"] |= kept
        shown = {**before, "arms": {**facts["arms"], **before["arms"]}}
        check_same_facts(study.name, folder, shown, facts)
    write_atomic(file, json.dumps(facts, indent=1) + "\n")


def _whole(study: Study, records: Sequence[dict]) -> list[dict]:
    """Records of cells that have all their steps."""
    steps: dict[Cell, set[int]] = {}
    for record in records:
        steps.setdefault(_cell(record), set()).add(record["step"])
    whole = {cell for cell, seen in steps.items() if seen == set(study.steps_of(cell))}
    return [record for record in records if _cell(record) in whole]


def _cell(record: Record) -> Cell:
    return Cell(*(record[name] for name in ("style", "adapter", "arm", "seed")))
