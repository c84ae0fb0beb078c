"""A study on disk: its facts, its records, and what is shown of its cells.

study.json                   everything that changes results, as the records were made
records.jsonl                a line per cell
shared/                      pretrained encoders, used by many cells
pictures/<world>/<seed>/     real.png, and <family>/<arm>.png: of the first captions
"""

import json
from collections.abc import Sequence
from pathlib import Path

from nsync.files import write_atomic

from ..studies.records import FACTS, RECORDS, Record, RecordFile, check_same_facts
from .study import REAL, Cell, Study


def shared_folder(folder: Path) -> Path:
    """Of what is used by many cells."""
    return folder / "shared"


def strip_file(folder: Path, cell: Cell) -> Path:
    """The cell's first pictures, side by side."""
    place = folder / "pictures" / f"{cell.labels}, {cell.objects}" / str(cell.seed)
    return place / "real.png" if cell.family == REAL else place / cell.family / f"{cell.arm}.png"


class Records(RecordFile):
    """The records of a study, one per cell; see `studies.records.RecordFile`.

    Raises:
        InputError: the folder has records of a study by other settings.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        check_same_study(study, folder)
        super().__init__(folder / RECORDS, cell_of, _once)


def check_same_study(study: Study, folder: Path) -> None:
    """Refuse to add to the records of a study by other settings; remember those of a new one.

    Families, arms, worlds and seeds may be added: the cells that are there stay what they were.

    Raises:
        InputError: everything that differs is named by its path.
    """
    file, facts = folder / FACTS, json.loads(json.dumps(study.facts()))
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        facts["families"] = {**before["families"], **facts["families"]}
        shown = {**before, "families": {**facts["families"], **before["families"]}}
        check_same_facts(study.name, folder, shown, facts)
    write_atomic(file, json.dumps(facts, indent=1) + "\n")


def cell_of(record: Record) -> Cell:
    """Whose a record is."""
    return Cell(*(record[name] for name in Cell._fields))


def _once(records: Sequence[Record]) -> list[Record]:
    """Each cell's first record."""
    found: dict[Cell, Record] = {}
    for record in records:
        found.setdefault(cell_of(record), record)
    return list(found.values())
