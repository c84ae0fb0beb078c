"""What the two branches of a step are fed: pairs encoded once by the frozen encoders, and noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...draws import generator
from ..encoders import Encoders, Words, device_of
from ..pairs import LabelledPairs, draw_rows, encoded_once
from .settings import GanSettings
from .sides import Side


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """Labelled pairs with what the encoders make of them, in main memory.

    Attributes:
        pairs: pictures and labels.
        seen: float `[n, d]`, of the pictures.
        read: of the captions, each once, padded to the longest.
        texts: int64 `[n]`, the row of each item's caption in `read`.
    """

    pairs: LabelledPairs
    seen: Tensor
    read: Words
    texts: Tensor


@torch.no_grad()
def encode_pairs(
    pairs: LabelledPairs, encoders: Encoders, on_item: Callable[[int, int], None] | None = None
) -> EncodedPairs:
    """Encode pictures and captions once; they are what they are in every step.

    Args:
        on_item: called with (items done, items in all); may raise to stop.
    """
    device = device_of(encoders)
    seen, read, texts = encoded_once(
        pairs, lambda pixels: encoders.images(pixels.to(device)).whole, encoders.texts, on_item
    )
    return EncodedPairs(pairs, seen, joined(read), texts)


def draw_sides(
    encoded: EncodedPairs, settings: GanSettings, noise: int, step: int, device: torch.device
) -> list[Side]:
    """What both branches get in update `step` (0-based), from the seed alone.

    Noise is drawn apart for each branch, see docs/decisions.md, and for each place in the batch.

    Args:
        noise: numbers per picture.
    """
    rows = draw_rows(encoded.pairs.labels.tensor, settings.batch, settings.seed, step)
    return [
        _side(encoded, places, _noise(settings, noise, step, branch), device)
        for branch, places in enumerate(rows)
    ]


def joined(read: Sequence[Words]) -> Words:
    """Several batches of texts as one in main memory, padded to the longest."""
    longest = max(batch.mask.shape[1] for batch in read)
    parts = []
    for batch in read:
        more = longest - batch.mask.shape[1]
        words, mask = F.pad(batch.words, (0, 0, 0, more)), F.pad(batch.mask, (0, more))
        parts.append([part.cpu() for part in (batch.sentence, words, mask)])
    return Words(*map(torch.cat, zip(*parts, strict=True)))


def _side(
    encoded: EncodedPairs, places: Sequence[int], noise: Tensor, device: torch.device
) -> Side:
    index = torch.tensor(places)
    texts = encoded.texts[index]
    pixels, labels = encoded.pairs.pixels(places), encoded.pairs.labels.rows(places)
    read = (part[texts] for part in encoded.read)
    parts = (pixels, encoded.seen[index], *read, texts, labels, noise)
    return Side(*(part.to(device, non_blocking=True) for part in parts))


def _noise(settings: GanSettings, noise: int, step: int, branch: int) -> Tensor:
    places = range(settings.batch)
    drawn = (generator(settings.seed, step, branch, place, "noise") for place in places)
    return torch.stack([torch.randn(noise, generator=one) for one in drawn])
