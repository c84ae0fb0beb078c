"""Labelled pairs of picture and caption, and the batches of the two branches."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..draws import generator
from ..errors import InputError
from ..pictures.buckets import fit
from ..pictures.images import to_uint8
from ..style_set import StyleSet
from .labels import Labels, read_labels
from .losses import label_overlap

T = TypeVar("T")

_AT_ONCE = 16  # encoded


class Rows(NamedTuple):
    """The items of a step, by their places in the set.

    Attributes:
        first: branch 1.
        second: branch 2, item by item of a label of the first.
    """

    first: list[int]
    second: list[int]


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """A labelled set in main memory.

    Attributes:
        names: of the items.
        captions: likewise.
        pictures: uint8 `[n, 3, s, s]`; 8 bit, as files hold them.
        labels: of the items.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    pictures: Tensor
    labels: Labels

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """The pictures of these items: float32 `[n, 3, s, s]` in -1..1."""
        return self.pictures[torch.tensor(rows, dtype=torch.long)].float() / 127.5 - 1

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The captions of these items."""
        return [self.captions[row] for row in rows]

    def only(self, rows: Sequence[int]) -> "LabelledPairs":
        """These items alone; the labels keep their numbers."""
        labels = replace(self.labels, tensor=self.labels.rows(rows))
        names = tuple(self.names[row] for row in rows)
        pictures = self.pictures[torch.tensor(rows, dtype=torch.long)]
        return LabelledPairs(names, tuple(self.texts(rows)), pictures, labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that training reads of them."""
        digest = hashlib.sha256("\x1f".join((*self.names, *self.captions)).encode())
        digest.update("\x1f".join(self.labels.names).encode())
        for tensor in (self.labels.tensor, self.pictures):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def read_pairs(
    style_set: StyleSet, image_size: int, on_item: Callable[[int, int], None] | None = None
) -> LabelledPairs:
    """Read a labelled set: pictures scaled to cover a square of this side, and cropped to it.

    Args:
        on_item: called with (items done, items in all) after each item; may raise to stop.

    Raises:
        InputError: labels or captions are not fit (`read_labels`), before any picture is read; a
            picture cannot be read.
    """
    labels = read_labels(style_set)
    pictures = []
    for done, item in enumerate(style_set.items, start=1):
        pictures.append(to_uint8(fit(item.load(), (image_size, image_size))))
        if on_item:
            on_item(done, len(style_set))
    names = tuple(item.name for item in style_set.items)
    captions = tuple(item.caption for item in style_set.items)
    return LabelledPairs(names, captions, torch.stack(pictures), labels)


def numbered(captions: Sequence[str]) -> Tensor:
    """Equal numbers for equal captions, and for no others: int64 `[n]`."""
    numbers = {caption: place for place, caption in enumerate(captions)}
    return torch.tensor([numbers[caption] for caption in captions])


def encoded_once(
    pairs: LabelledPairs,
    see: Callable[[Tensor], Tensor],
    read: Callable[[list[str]], T],
    on_item: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[T], Tensor]:
    """Every picture and every different caption encoded once, some at a time.

    Args:
        see: of pixels; its features `[n, d]` are taken to main memory.
        read: of captions.
        on_item: called with (pictures done, pictures in all); may raise to stop.

    Returns:
        Features of the pictures; what `read` gave, part by part; int64 `[n]`, which row of all
        these parts is of a picture's caption.
    """
    seen, captions = [], list(dict.fromkeys(pairs.captions))
    for rows in _chunks(len(pairs)):
        seen.append(see(pairs.pixels(rows)).cpu())
        if on_item:
            on_item(rows[-1] + 1, len(pairs))
    told = [read([captions[row] for row in rows]) for rows in _chunks(len(captions))]
    numbers = {caption: row for row, caption in enumerate(captions)}
    return torch.cat(seen), told, torch.tensor([numbers[caption] for caption in pairs.captions])


def split(pairs: LabelledPairs, count: int, seed: int) -> tuple[LabelledPairs, LabelledPairs]:
    """The pairs to train on, and `count` that are held out, drawn by the seed.

    Raises:
        InputError: fewer than two would be left to train on.
    """
    left = len(pairs) - count
    if left < 2:
        expected = "fewer held-out pictures, so that at least two of the set are trained on"
        raise InputError("validation", expected, f"{count} of {len(pairs)}")
    order = torch.randperm(len(pairs), generator=generator(seed, "held out")).tolist()
    return pairs.only(sorted(order[count:])), pairs.only(sorted(order[:count]))


def draw_rows(labels: Tensor, batch: int, seed: int, step: int) -> Rows:
    """The two branches of update `step` (0-based), from the seed alone.

    Branch 1 goes through the set in a new order every epoch, each item once. Branch 2 has for each
    of its items another one with a label in common, drawn with the overlap of their labels for
    weight (`losses.label_overlap`); the item itself where it shares its labels with nobody.

    Args:
        labels: of the whole set; see `Labels.tensor`.
        batch: items per branch.
    """
    first = _in_order(len(labels), range(step * batch, (step + 1) * batch), seed)
    weights = label_overlap(labels[torch.tensor(first)], labels)
    second = []
    for place, row in enumerate(first):
        again = first[:place].count(row)  # an item twice in a batch gets partners of its own
        drawn = generator(seed, step, "partner", row, again)
        second.append(_partner(row, weights[place], drawn))
    return Rows(first, second)


def _in_order(count: int, places: range, seed: int) -> list[int]:
    epochs = range(places[0] // count, places[-1] // count + 1)
    orders = {e: torch.randperm(count, generator=generator(seed, "order", e)) for e in epochs}
    return [int(orders[place // count][place % count]) for place in places]


def _partner(row: int, weights: Tensor, drawn: torch.Generator) -> int:
    weights = weights.clone()
    weights[row] = 0
    if not weights.any():
        return row
    return int(torch.multinomial(weights, 1, generator=drawn))


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
