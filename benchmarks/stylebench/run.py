"""Runs the cells of a study in several processes; stopped at any time, it goes on where it was."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from .pool import Pool
from .store import Records
from .study import BASE, Cell, Study


@dataclass
class Outcome:
    """What became of a call.

    Attributes:
        done: cells whose records are there, those of earlier calls included.
        cells: cells in all.
        failed: tracebacks by cell.
    """

    done: int
    cells: int
    failed: dict[Cell, str] = field(default_factory=dict)


def run_study(
    study: Study,
    folder: Path,
    processes: int | None = None,
    minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> Outcome:
    """Run the cells of a study that have no records yet.

    Args:
        folder: of the study; see `store`.
        processes: one thread each; None for as many as there are cores.
        minutes: after them no cell is running any more; None runs to the end. A cell that would
            not be ready in time is not begun.
        tell: called with a line now and then.

    Raises:
        InputError: `folder` has records of a study by other settings.
        RuntimeError: a process ended by itself, or what the cells of a seed share was not made.
    """
    records = Records(study, folder)
    cells = list(study.cells())
    todo = [cell for cell in cells if cell not in records.done]
    outcome = Outcome(len(cells) - len(todo), len(cells))
    tell(f"{study.name}: {outcome.done} of {outcome.cells} cells are there in {folder}")
    if not todo:
        return outcome
    count = min(processes or os.cpu_count() or 1, len(todo))
    pace = _Pace(count, todo, minutes)
    seeds = dict.fromkeys(cell.seed for cell in todo)
    with Pool(study, folder, count) as pool:
        for seed, result in pool.results(seeds, pace.has_time, pace.end):
            if isinstance(result, str):
                raise RuntimeError(f"What cells of seed {seed} share was not made:\n{result}")
            tell(f"Seed {seed}: the base's pictures and the negatives are there")
        if not pace.has_time():
            return outcome
        for cell, result in pool.results(todo, pace.has_time, pace.end):
            if isinstance(result, str):
                outcome.failed[cell] = result
                tell(f"{cell} failed:\n{result}")
                continue
            records.add(result.records)
            pace.add(cell, result.seconds)
            outcome.done += 1
            tell(f"[{outcome.done}/{outcome.cells}] {cell}: {_summary(result.records)}; {pace}")
    return outcome


class _Pace:
    """How long cells take, how long the rest will take, and how much time is given.

    Args:
        processes: that work at once.
        todo: cells.
        minutes: from now on, or None.

    Attributes:
        end: when time is over, by `time.monotonic`.
    """

    def __init__(self, processes: int, todo: Sequence[Cell], minutes: float | None) -> None:
        self._processes, self._todo = processes, sum(cell.arm != BASE for cell in todo)
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._seconds: list[float] = []

    def add(self, cell: Cell, seconds: float) -> None:
        """A cell took so long; the base's are too short to count."""
        if cell.arm != BASE:
            self._seconds.append(seconds)

    def has_time(self) -> bool:
        """Whether a cell that is begun now would be ready in time."""
        return time.monotonic() + self._mean < self.end

    def __str__(self) -> str:
        """The time that the rest will take."""
        rest = (self._todo - len(self._seconds)) * self._mean / self._processes
        return f"{self._mean:.0f} s a cell, about {rest / 3600:.1f} h left"

    @property
    def _mean(self) -> float:
        return fmean(self._seconds) if self._seconds else 0.0


def _summary(records: Sequence[Mapping[str, object]]) -> str:
    """Where the cell stands at its end, in a few words."""
    last = records[-1]["metrics"]
    names = ("style_hit", "content", "drift")
    return ", ".join(f"{name} {last[name]:.2f}" for name in names)
