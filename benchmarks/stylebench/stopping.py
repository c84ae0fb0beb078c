"""Early stop by drift, told from runs that were measured at many steps.

Whoever stops at a bound looks at what the model draws without the style token, after every so many
steps, and keeps the last weights before pictures had moved further from the base's than the bound.
Nothing has to be trained for it: the records of a study say what would have been kept.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from .reading import Record
from .result import BASE

METRICS = ("style_hit", "content", "drift")


@dataclass(frozen=True)
class Stopped:
    """What an arm comes to with a bound, means over styles of the means over seeds.

    Attributes:
        bound: of the drift.
        early: cells that passed it at some step.
        cells: all of them.
        step: that was kept; 0 where the first look was beyond the bound.
    """

    adapter: str
    arm: str
    bound: float
    early: int
    cells: int
    step: float
    style_hit: float
    content: float
    drift: float


def stopped(records: Sequence[Record], bounds: Iterable[float]) -> list[Stopped]:
    """What every arm of a study comes to with every bound; infinity is no bound.

    Args:
        records: as `reading.read_records` gives them, those of the base among them.
    """
    base = {_place(record): record for record in records if record["arm"] == BASE}
    runs: dict[tuple[str, str], dict[tuple[object, ...], list[Record]]] = defaultdict(dict)
    for record in sorted(records, key=lambda one: one["step"]):
        if record["arm"] != BASE:
            run = runs[record["adapter"], record["arm"]]
            run.setdefault(_place(record), [base[_place(record)]]).append(record)
    return [
        _stopped(adapter, arm, of_arm, bound)
        for (adapter, arm), of_arm in runs.items()
        for bound in bounds
    ]


def as_markdown(found: Iterable[Stopped]) -> str:
    """A row per arm and bound."""
    lines = ["| arm | drift at most | stopped early | step | style hit rate | content | drift |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in found:
        lines.append(
            f"| {one.arm} ({one.adapter}) | {one.bound:g} | {one.early} of {one.cells} | "
            f"{one.step:.0f} | {one.style_hit:.3f} | {one.content:.3f} | {one.drift:.4f} |"
        )
    return "\n".join(lines) + "\n"


def _place(record: Record) -> tuple[object, ...]:
    return record["style"], record["seed"]


def _stopped(
    adapter: str, arm: str, runs: dict[tuple[object, ...], list[Record]], bound: float
) -> Stopped:
    kept = {place: _kept(run, bound) for place, run in runs.items()}
    by_style: dict[object, list[Record]] = defaultdict(list)
    for (style, _), record in kept.items():
        by_style[style].append(record)
    early = sum(record is not runs[place][-1] for place, record in kept.items())
    means = {
        name: fmean(fmean(one["metrics"][name] for one in group) for group in by_style.values())
        for name in METRICS
    }
    step = fmean(fmean(one["step"] for one in group) for group in by_style.values())
    return Stopped(adapter, arm, bound, early, len(kept), step, **means)


def _kept(run: Sequence[Record], bound: float) -> Record:
    """The last record before the first that is beyond the bound; a run begins with the base's."""
    for before, record in itertools.pairwise(run):
        if record["metrics"]["drift"] > bound:
            return before
    return run[-1]
