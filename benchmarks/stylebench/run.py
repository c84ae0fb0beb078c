"""Runs the cells of a study that have no records yet."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..studies.records import Record
from ..studies.run import Group, Outcome, run_groups
from .store import Records
from .study import BASE, Study
from .workshop import Workshop
from .world import base_folder


def run_study(
    study: Study,
    folder: Path,
    processes: int | None = None,
    minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Run what has not been run of a study.

    Args:
        folder: of the study; see `store`.
        processes, minutes, tell: see `studies.run.run_groups`.

    Raises:
        InputError: the base is not here; `folder` has records of a study by other settings.
        RuntimeError: a process ended by itself, or what the cells of a seed share was not made.
    """
    base_folder(study.base_seed)  # missing, it is told before a process or a file is made
    records = Records(study, folder)
    cells = list(study.cells())
    todo = [cell for cell in cells if cell not in records.done]
    outcome = Outcome(len(cells) - len(todo), len(cells))
    tell(f"{study.name}: {outcome.done} of {outcome.cells} cells are there in {folder}")
    seeds = tuple(dict.fromkeys(cell.seed for cell in todo))
    told = "Seed {}: the base's pictures and the negatives are there"
    return run_groups(
        [Group(seeds, todo, told)],
        records,
        partial(Workshop, study, folder),
        outcome,
        processes=processes,
        minutes=minutes,
        tell=tell,
        summary=_summary,
        counts=lambda cell: cell.arm != BASE,  # the base's are too short to count
    )


def _summary(records: Sequence[Record]) -> str:
    """Where the cell stands at its end, in a few words."""
    last = records[-1]["metrics"]
    names = ("style_hit", "content", "drift")
    return ", ".join(f"{name} {last[name]:.2f}" for name in names)
