"""The runs of one training: one for all pictures, or one for every label, one after the other."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from ..errors import InputError
from ..names import check_name
from ..processes import ProcessLostError
from ..sets.labels import by_label
from ..settings import TrainSettings
from ..style_set import StyleSet
from .log import RunStoppedError

ONE_STYLE, PER_LABEL = "one style", "one run per label"
LABELS = (ONE_STYLE, PER_LABEL)

R = TypeVar("R")
M = TypeVar("M")


def sets_of_runs(
    settings: TrainSettings, style_set: StyleSet, name: str, labels: str
) -> dict[str, StyleSet]:
    """The set of each run, by the run's name: `name` itself, or `<name>_<label>` for every label.

    Args:
        labels: one of `LABELS`.

    Raises:
        InputError: the set cannot be split (see `by_label`); name or label cannot be part of a file
            name; two labels differ by capitals only.
    """
    name = check_name(name)
    if labels == ONE_STYLE:
        return {name: style_set}
    sets = by_label(settings, style_set)
    _check_apart(sets)
    return {check_name(f"{name}_{label}", "labels"): own for label, own in sets.items()}


def each(runs: Sequence[R], make: Callable[[R, int], M]) -> tuple[list[M], list[RunStoppedError]]:
    """Make all runs; one whose numbers go bad does not keep the others from it.

    Args:
        make: given a run and its place among them.

    Returns:
        What came of those that were not stopped, and what stopped the others.

    Raises:
        ProcessLostError: another process has stopped; no run after this one is begun.
        OutOfMemoryError: likewise, for it would come again.
    """
    made: list[M] = []
    stopped: list[RunStoppedError] = []
    for place, run in enumerate(runs):
        try:
            made.append(make(run, place))
        except ProcessLostError:
            raise
        except RunStoppedError as error:
            stopped.append(error)
    return made, stopped


def _check_apart(labels: Collection[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        first = seen.setdefault(label.casefold(), label)
        if first != label:
            raise InputError(
                "labels",
                "labels that differ by more than capitals, since each names a file",
                f"{first!r} and {label!r}",
                "Rename one of them.",
            )
