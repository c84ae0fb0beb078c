"""What has to be known to read the numbers of a study: computed, so that none is forgotten."""

from collections.abc import Iterable

from nsync.evaluation.statistics import LEAST

from .result import PRIMARY, Analysis, Comparison
from .ruling import LEAST_PICTURES

_OPEN = (0.3, 0.8)
"""Where plain training's style hit rate leaves room to both sides."""


def notes(found: Analysis) -> tuple[str, ...]:
    """A sentence for everything that weakens the result, or none.

    Args:
        found: the analysis but for its notes.
    """
    primary = [one for one in found.comparisons if one.metric == PRIMARY]
    parts = (
        _styles(found),
        _impossible(primary),
        _missing(primary),
        _apart(found),
        _room(found),
        _unequal(found),
    )
    return tuple(note for part in parts for note in part)


def counted(number: int, word: str) -> str:
    """`1 style`, `2,000 styles`."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def _styles(found: Analysis) -> Iterable[str]:
    if len(found.styles) < LEAST:
        yield (
            f"{counted(len(found.styles), 'style')}: no intervals below {LEAST}, and no arm can "
            "win. These numbers show that the study runs, not which arm is better."
        )
    if len(found.styles) > 1 and len(found.seeds) == 1:
        yield "One seed: what a style and what a seed does cannot be told apart."


def _impossible(primary: Iterable[Comparison]) -> Iterable[str]:
    hit = sorted({(one.adapter, one.against) for one in primary if one.detectable is None})
    for adapter, against in hit:
        yield (
            f"{adapter}, against {against}: with so few styles for so many arms no difference "
            "could reach a corrected p below 0.05, even one of the same sign in every style."
        )


def _missing(primary: Iterable[Comparison]) -> Iterable[str]:
    short = [
        f"{one.adapter}, {one.arm} - {one.against}: {one.missing} of {one.pairs + one.missing}"
        for one in primary
        if one.missing
    ]
    if short:
        yield f"Pairs left out, for a side is missing: {'; '.join(short)}."


def _apart(found: Analysis) -> Iterable[str]:
    if found.budget.fell_apart:
        counts = "; ".join(f"{name}: {n}" for name, n in sorted(found.budget.fell_apart.items()))
        yield f"Cells that fell apart and are judged by their last pictures: {counts}."


def _room(found: Analysis) -> Iterable[str]:
    for adapter in found.adapters:
        plain = found.mean(adapter, found.baselines[0], PRIMARY)
        if plain and not _OPEN[0] <= plain.value.value <= _OPEN[1]:
            yield (
                f"{adapter}: {plain.arm} hits the style in {plain.value.value:.0%} at the last "
                "step, outside 30 to 80 %: arms have little room to differ. Look at earlier steps."
            )


def _unequal(found: Analysis) -> Iterable[str]:
    for one in found.rulings:
        if one.pictures_ratio * LEAST_PICTURES > 1:
            yield (
                f"{one.adapter}: no plain arm saw as many pictures as {one.arm} "
                f"({one.pictures_ratio:.2f} times those of {one.equal_pictures}); it cannot win."
            )
