"""A small pair of encoders of our own, trained from nothing in minutes, for pictures of some 64 px.

Pictures go through residual convolutions, texts word by word through a small transformer. Nothing
looks over the batch (no batch normalisation): features of an item do not depend on its neighbours.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..draws import seeded
from ..errors import InputError
from .encoders import Pictures, Words, check_captions, fitted

_WORD = re.compile(r"\w+")
_NOTHING, _START, _UNKNOWN = range(3)
_FIRST = 3  # the number of the vocabulary's first word


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """All words of the captions, once each, in alphabetical order."""
    return sorted({word for caption in captions for word in words_of(caption)})


class SmallEncoders(nn.Module):
    """See `nsync.supcon.encoders.Encoders`; about a million weights at the usual sizes.

    A token is a word. Words outside the vocabulary are all the same token.

    Args:
        vocabulary: the words that are known.
        image_size: side of the pictures, a multiple of 8.
        width: of the features, a multiple of 32.
        longest: words of a text.

    Raises:
        InputError: such sizes, no words, or a word twice.
    """

    kind: ClassVar[str] = "small"

    def __init__(
        self,
        vocabulary: Sequence[str],
        image_size: int = 64,
        width: int = 128,
        longest: int = 64,
    ) -> None:
        super().__init__()
        _check(vocabulary, image_size, width, longest)
        self.image_size, self.width, self.longest = image_size, width, longest
        self._numbers = {word: place for place, word in enumerate(vocabulary, start=_FIRST)}
        self.image_encoder = _ImageEncoder(image_size, width)
        self.text_encoder = _TextEncoder(len(vocabulary) + _FIRST, width, longest)

    @classmethod
    def fresh(
        cls, captions: Iterable[str], seed: int, image_size: int = 64, width: int = 128
    ) -> "SmallEncoders":
        """Untrained ones that know the words of these captions.

        Raises:
            InputError: such sizes; no word in any caption.
        """
        with seeded(seed, "small encoders"):
            return cls(vocabulary_of(captions), image_size, width)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SmallEncoders":
        """Some with the shapes of a file's."""
        return cls(**config)

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` makes the same shapes of."""
        return {
            "vocabulary": list(self._numbers),
            "image_size": self.image_size,
            "width": self.width,
            "longest": self.longest,
        }

    def images(self, pixels: Tensor) -> Pictures:
        """See `Encoders.images`; the regions are an 8th of the side each way."""
        return self.image_encoder(fitted(self, pixels))

    def texts(self, captions: Sequence[str]) -> Words:
        """See `Encoders.texts`."""
        check_captions(self, ((repr(caption), caption) for caption in captions))
        numbers = [[self._numbers.get(word, _UNKNOWN) for word in words_of(c)] for c in captions]
        columns = max(1, *map(len, numbers))
        rows = [[_START, *row, *[_NOTHING] * (columns - len(row))] for row in numbers]
        return self.text_encoder(torch.tensor(rows, device=self.text_encoder.table.weight.device))

    def tokens(self, caption: str) -> int:
        """How many words a text has."""
        return len(words_of(caption))

    def unknown(self, caption: str) -> list[str]:
        """See `Encoders.unknown`."""
        return [word for word in words_of(caption) if word not in self._numbers]


class _ImageEncoder(nn.Module):
    """Down to an 8th of the side; there every place learns where it is."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        a, b, c, d = (width * k // 4 for k in (1, 2, 3, 4))
        self.enter = nn.Conv2d(3, a, 4, stride=2, padding=1)
        self.down = nn.Sequential(_Block(a, b, 2), _Block(b, c, 2))
        self.places = nn.Parameter(torch.zeros(c, side // 8, side // 8))
        self.deep = nn.Sequential(_Block(c, d), _Block(d, d), nn.GroupNorm(8, d), nn.SiLU())
        self.regions = nn.Linear(d, width)
        self.whole = nn.Linear(2 * d, width)

    def forward(self, pixels: Tensor) -> Pictures:
        maps = self.deep(self.down(self.enter(pixels)) + self.places)
        rows = maps.flatten(2).transpose(1, 2)
        summed = torch.cat([rows.mean(1), rows.amax(1)], 1)
        return Pictures(self.whole(summed), self.regions(rows))


class _Block(nn.Module):
    """Two convolutions around which there is a way."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, count) for count in (inputs, outputs))
        self.around = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self._stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.first(F.silu(self.norms[0](maps)))
        inner = self.second(F.silu(self.norms[1](inner)))
        return self.around(F.avg_pool2d(maps, self._stride)) + inner


class _TextEncoder(nn.Module):
    """A transformer over the words; a start token before them sums them up."""

    def __init__(self, count: int, width: int, longest: int) -> None:
        super().__init__()
        self.table = nn.Embedding(count, width)
        self.places = nn.Parameter(torch.randn(longest + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, width // 32, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, 2, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.sentence = nn.Linear(width, width)
        self.words = nn.Linear(width, width)

    def forward(self, numbers: Tensor) -> Words:
        nothing = numbers == _NOTHING
        entered = self.table(numbers) + self.places[: numbers.shape[1]]
        states = self.layers(entered, src_key_padding_mask=nothing)
        mask = ~nothing[:, 1:]
        words = self.words(states[:, 1:]) * mask[..., None]
        return Words(self.sentence(states[:, 0]), words, mask)


def _check(vocabulary: Sequence[str], image_size: int, width: int, longest: int) -> None:
    for name, value, least in (("image_size", image_size, 8), ("width", width, 32)):
        if value < least or value % least:
            raise InputError(name, f"a multiple of {least}", repr(value))
    if longest < 1:
        raise InputError("longest", "at least 1", repr(longest))
    if not vocabulary or len(set(vocabulary)) < len(vocabulary):
        raise InputError("vocabulary", "at least one word, each once", f"{len(vocabulary)} words")
