"""Runs cells in several processes; stopped at any time, they go on where they were."""

import math
import os
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from .pool import Pool, Work
from .records import Record, RecordFile

Cell = Hashable


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


@dataclass(frozen=True)
class Group:
    """Cells that are run after what they share has been made.

    Attributes:
        shared: tasks for which the work gives no records; those done already take no time.
        cells: what comes next.
        told: what is said of a shared task that is done.
    """

    shared: Sequence[Hashable]
    cells: Sequence[Cell]
    told: str


def filled(groups: Sequence[Group], count: int) -> list[Group]:
    """Neighbours put together until each group has a cell for each of `count` processes."""
    found: list[Group] = []
    for group in groups:
        if found and len(found[-1].cells) < count:
            last = found.pop()
            shared = tuple(dict.fromkeys([*last.shared, *group.shared]))
            group = Group(shared, [*last.cells, *group.cells], group.told)
        found.append(group)
    return found


def run_groups(
    groups: Sequence[Group],
    records: RecordFile,
    begin: Callable[[], Work],
    outcome: Outcome,
    *,
    processes: int | None,
    minutes: float | None,
    tell: Callable[[str], None],
    summary: Callable[[Sequence[Record]], str],
    counts: Callable[[Cell], bool] = lambda cell: True,
) -> Outcome:
    """Run groups of cells one after the other, small ones together.

    Args:
        begin: see `pool.Pool`.
        outcome: before anything is run.
        processes: one thread each; None for as many as there are cores.
        minutes: after them no cell is running any more; None runs to the end. A cell that would
            not be ready in time is not begun.
        tell: called with a line now and then.
        summary: where a cell stands at its end, in a few words.
        counts: whether a cell is one of those that take time.

    Raises:
        RuntimeError: a process ended by itself, or what cells share was not made.
    """
    todo = [cell for group in groups for cell in group.cells]
    if not todo:
        return outcome
    count = min(processes or os.cpu_count() or 1, len(todo))
    pace = _Pace(count, sum(map(counts, todo)), minutes)
    with Pool(begin, count) as pool:
        for group in filled(groups, count):
            for task, result in pool.results(group.shared, pace.has_time, pace.end):
                if isinstance(result, str):
                    raise RuntimeError(f"What cells share was not made, {task}:\n{result}")
                tell(group.told.format(task))
            if not pace.has_time():
                return outcome
            for cell, result in pool.results(group.cells, pace.has_time, pace.end):
                if isinstance(result, str):
                    outcome.failed[cell] = result
                    tell(f"{cell} failed:\n{result}")
                    continue
                records.add(result.records)
                if counts(cell):
                    pace.add(result.seconds)
                outcome.done += 1
                told = f"{cell}: {summary(result.records)}; {pace}"
                tell(f"[{outcome.done}/{outcome.cells}] {told}")
    return outcome


class _Pace:
    """How long cells take, how long the rest will take, and how much time is given.

    Args:
        processes: that work at once.
        todo: how many cells that count.
        minutes: from now on, or None.

    Attributes:
        end: when time is over, by `time.monotonic`.
    """

    def __init__(self, processes: int, todo: int, minutes: float | None) -> None:
        self._processes, self._todo = processes, todo
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """A cell took so long."""
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
