"""The labels of a set: which pictures belong together, as tensors that the losses take."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..style_set import StyleItem, StyleSet

SEVERAL = ","
"""What stands between the labels of one picture."""

_NAMED = 10  # items named in an error before it says how many more there are


@dataclass(frozen=True, eq=False)
class Labels:
    """Which items have which label.

    Attributes:
        names: of the labels, in alphabetical order.
        tensor: int64 `[n]`, numbers into `names`, where every item has one; else float32 0 and 1
            `[n, classes]`. What `nsync.supcon.losses` takes.
        notes: what a user may want to know of them, as sentences.
    """

    names: tuple[str, ...]
    tensor: Tensor
    notes: tuple[str, ...] = ()

    def rows(self, places: Sequence[int]) -> Tensor:
        """The labels of these items, in this order."""
        return self.tensor[torch.tensor(places, dtype=torch.long)]


def read_labels(style_set: StyleSet) -> Labels:
    """The labels of the set's items.

    Raises:
        InputError: an item without a label, or with an empty caption; labels that tell no item
            from any other.
    """
    if not len(style_set):
        raise InputError("style_set", "at least two pictures", "an empty set")
    sets = [_labels_of(item) for item in style_set.items]
    _check(style_set, sets)
    names = sorted(set().union(*sets))
    places = {name: place for place, name in enumerate(names)}
    if all(len(labels) == 1 for labels in sets):
        tensor = torch.tensor([places[label] for labels in sets for label in labels])
    else:
        tensor = torch.zeros(len(sets), len(names))
        for row, labels in zip(tensor, sets, strict=True):
            row[[places[label] for label in labels]] = 1
    return Labels(tuple(names), tensor, _notes(sets))


def _labels_of(item: StyleItem) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in item.label.split(SEVERAL))))


def _check(style_set: StyleSet, sets: Sequence[frozenset[str]]) -> None:
    pairs = list(zip(style_set.items, sets, strict=True))
    if bare := [item.name for item, labels in pairs if not labels]:
        raise InputError(
            "style_set",
            "a label for every picture",
            f"none for {_listed(bare)}",
            "Put the pictures into a folder for each label, or write the labels down; several of "
            f"one picture are separated by {SEVERAL!r}.",
        )
    if mute := [item.name for item in style_set.items if not item.caption.strip()]:
        raise InputError(
            "style_set",
            "a caption for every picture",
            f"none for {_listed(mute)}",
            "Write captions, or let the captioner write them.",
        )
    if len(set(sets)) < 2:
        labels = ", ".join(sorted(sets[0]))
        raise InputError(
            "style_set",
            "pictures of at least two different labels",
            f"{labels!r} for all {len(sets)}",
            "Where all pictures belong together there is nothing to be told apart: add pictures of "
            "another label.",
        )


def _notes(sets: Sequence[frozenset[str]]) -> tuple[str, ...]:
    counts = Counter(label for labels in sets for label in labels)
    single = sorted(label for label, count in counts.items() if count == 1)
    if not single:
        return ()
    return (
        f"Labels with one picture: {_listed(single)}. Where a picture shares no label with another "
        "one it is its own partner in the second branch, so its label teaches that picture and "
        "caption belong together, and nothing more.",
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
