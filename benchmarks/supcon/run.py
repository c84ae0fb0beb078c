"""Runs the cells of a study that have no records yet."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..studies.records import Record
from ..studies.run import Group, Outcome, run_groups
from .store import Records
from .study import REAL, Cell, Judge, Study
from .workshop import Workshop


def run_study(
    study: Study,
    folder: Path,
    processes: int | None = None,
    minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Run what has not been run of a study, contrast by contrast, world by world.

    Args:
        folder: of the study; see `store`.
        processes, minutes, tell: see `studies.run.run_groups`.

    Raises:
        InputError: `folder` has records of a study by other settings.
        RuntimeError: a process ended by itself, or encoders could not be pretrained.
    """
    records = Records(study, folder)
    blocks = list(study.blocks())
    todo = [[cell for cell in block if cell not in records.done] for block in blocks]
    total, left = (sum(map(len, each)) for each in (blocks, todo))
    outcome = Outcome(total - left, total)
    tell(f"{study.name}: {outcome.done} of {outcome.cells} cells are there in {folder}")
    return run_groups(
        [_group(study, block) for block in todo if block],
        records,
        partial(Workshop, study, folder),
        outcome,
        processes=processes,
        minutes=minutes,
        tell=tell,
        summary=_summary,
        counts=lambda cell: cell.family != REAL,
    )


def _group(study: Study, cells: Sequence[Cell]) -> Group:
    judges = [Judge(cell.objects) for cell in cells]
    shared = [study.pretraining_of(cell) for cell in cells if cell.family != REAL]
    return Group(tuple(dict.fromkeys([*judges, *shared])), cells, "{} is there")


def _summary(records: Sequence[Record]) -> str:
    """What it came to, in a few words."""
    found = records[-1]["metrics"]
    return f"Frechet {found['frechet']:.0f}, " + ", ".join(
        f"{name} {found[name]:.2f}" for name in ("precision", "style", "shape", "colour", "place")
    )
