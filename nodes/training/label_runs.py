"""The runs of one trainer node: one for all pictures, or one for every label."""

import glob
from collections.abc import Collection

from ...nsync.errors import InputError
from ...nsync.names import check_name
from ...nsync.runs.folder import RunFolder
from ...nsync.sets.labels import by_label
from ...nsync.settings import TrainSettings
from ...nsync.style_set import StyleSet
from ..folders import run_folder

ONE_STYLE, PER_LABEL = "one style", "one run per label"
LABELS = (ONE_STYLE, PER_LABEL)


def sets_of_runs(
    settings: TrainSettings, style_set: StyleSet, name: str, labels: str
) -> dict[str, StyleSet]:
    """The set of each run, by the run's name: `name` itself, or `<name>_<label>` for every label.

    Raises:
        InputError: the set cannot be split (see `by_label`); a label cannot be part of a file name.
    """
    if labels == ONE_STYLE:
        return {name: style_set}
    sets = by_label(settings, style_set)
    _check_apart(sets)
    name = check_name(name)
    names = {label: check_name(f"{name}_{label}", "labels") for label in sets}
    return {names[label]: own for label, own in sets.items()}


def pending_runs(name: str, labels: str) -> str:
    """A text that is another one whenever a stopped or paused run of the node has gone on."""
    if labels == ONE_STYLE:
        return RunFolder(run_folder(name)).pending()
    # Which labels there are is not known before the graph runs.
    own = run_folder(name)
    folders = sorted(own.parent.glob(f"{glob.escape(own.name)}_*"))
    return " ".join(f"{folder.name}:{RunFolder(folder).pending()}" for folder in folders)


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
