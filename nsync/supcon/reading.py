"""What the rows of a training set are as features, to encoders that are being trained."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .clip_encoders import ClipEncoders
from .encoders import Encoders, Pictures, Words, device_of
from .pairs import LabelledPairs, encoded_once


class Reader(Protocol):
    """Pictures and captions of rows of a set, encoded so that gradients reach what is trained."""

    def images(self, rows: Sequence[int]) -> Pictures:
        """See `Encoders.images`."""
        ...

    def texts(self, rows: Sequence[int]) -> Words:
        """See `Encoders.texts`."""
        ...


def reader(
    encoders: Encoders,
    pairs: LabelledPairs,
    *,
    in_parts: bool,
    on_item: Callable[[int, int], None] | None = None,
) -> Reader:
    """How a training reads its set.

    Frozen towers make the same of a picture in every step, so that each is looked at once, at the
    start. Features of patches and words would be too many to be kept: whoever wants them has all of
    it computed every time.

    Args:
        in_parts: regions and words are wanted as well.
        on_item: called while the set is looked at with (items done, items in all); may raise.
    """
    if isinstance(encoders, ClipEncoders) and not encoders.trains_towers and not in_parts:
        return _Once(encoders, pairs, on_item)
    return _EveryTime(encoders, pairs)


class _EveryTime:
    def __init__(self, encoders: Encoders, pairs: LabelledPairs) -> None:
        self._encoders, self._pairs = encoders, pairs

    def images(self, rows: Sequence[int]) -> Pictures:
        return self._encoders.images(self._pairs.pixels(rows).to(device_of(self._encoders)))

    def texts(self, rows: Sequence[int]) -> Words:
        return self._encoders.texts(self._pairs.texts(rows))


class _Once:
    """What CLIP would compare is kept in main memory; the projections after it are trained."""

    @torch.no_grad()
    def __init__(
        self,
        encoders: ClipEncoders,
        pairs: LabelledPairs,
        on_item: Callable[[int, int], None] | None,
    ) -> None:
        self._encoders, device = encoders, device_of(encoders)
        self._images, texts, self._places = encoded_once(
            pairs,
            lambda pixels: encoders.compared_pictures(pixels.to(device))[:, 0],
            lambda captions: encoders.compared_sentences(captions).cpu(),
            on_item,
        )
        self._texts = torch.cat(texts)

    def images(self, rows: Sequence[int]) -> Pictures:
        whole = self._encoders.project_images(self._kept(self._images, rows))
        return Pictures(whole, whole[:, None][:, :0])

    def texts(self, rows: Sequence[int]) -> Words:
        sentence = self._encoders.project_texts(self._kept(self._texts, self._places[list(rows)]))
        words = sentence[:, None][:, :0]
        return Words(sentence, words, words.new_zeros(words.shape[:2], dtype=torch.bool))

    def _kept(self, features: Tensor, rows: Sequence[int] | Tensor) -> Tensor:
        return features[torch.as_tensor(rows)].to(device_of(self._encoders))
