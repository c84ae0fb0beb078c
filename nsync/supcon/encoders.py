"""What a pair of encoders has to be, for pretraining, for the GANs and for whoever measures them.

Pictures and texts become features of one width, as a whole and in parts: regions of a picture,
words of a text. Matching compares wholes; families that look at words use the parts.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..identity import feed_tensors

logger = logging.getLogger(__name__)

_NAMED = 10  # captions and words named before it says how many more there are


class Pictures(NamedTuple):
    """Features of pictures.

    Attributes:
        whole: float `[n, d]`.
        regions: float `[n, r, d]`, row by row over the picture.
    """

    whole: Tensor
    regions: Tensor


class Words(NamedTuple):
    """Features of texts.

    Attributes:
        sentence: float `[n, d]`.
        words: float `[n, l, d]`, 0 where there is none.
        mask: bool `[n, l]`, True where there is a word; l is that of the longest text, at least 1.
    """

    sentence: Tensor
    words: Tensor
    mask: Tensor


class Encoders(Protocol):
    """A module that encodes pictures and texts; it reads texts itself.

    Attributes:
        kind: in files; see `encoder_file`.
        width: d, of all features.
        image_size: side of the pictures that it looks at.
        longest: tokens of a text that it reads.
    """

    kind: ClassVar[str]
    width: int
    image_size: int
    longest: int

    @property
    def config(self) -> dict[str, Any]:
        """What it is made of, as JSON values; `from_config` makes one without trained weights."""
        ...

    def images(self, pixels: Tensor) -> Pictures:
        """Encode float `[n, 3, s, s]` in -1..1; sides other than `image_size` are scaled to it.

        Raises:
            InputError: no such pictures.
        """
        ...

    def texts(self, captions: Sequence[str]) -> Words:
        """Encode texts.

        Raises:
            InputError: one takes more tokens than `longest`.
        """
        ...

    def tokens(self, caption: str) -> int:
        """How many tokens of `longest` a text takes."""
        ...

    def unknown(self, caption: str) -> list[str]:
        """Words of a text that it does not know and reads as one and the same."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights; those that ask for gradients are trained."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, by name."""
        ...


def check_captions(encoders: Encoders, captions: Iterable[tuple[str, str]]) -> None:
    """Refuse captions that the text encoder would not read to their end.

    Args:
        captions: (name of the item, caption).

    Raises:
        InputError: it lists them, with the tokens that they take.
    """
    counts = [(name, encoders.tokens(caption)) for name, caption in captions]
    long = [
        f"  {name}: {count} tokens of {encoders.longest}"
        for name, count in counts
        if count > encoders.longest
    ]
    if long:
        more = [f"  and {len(long) - _NAMED} more"] if len(long) > _NAMED else []
        raise InputError(
            "captions",
            f"captions of at most {encoders.longest} tokens, which the text encoder reads",
            "\n".join([f"{len(long)} too long:", *long[:_NAMED], *more]),
            "\nShorten them.",
        )


def check_words(encoders: Encoders, captions: Sequence[tuple[str, str]]) -> None:
    """Refuse captions to train with that would not be read to their end, or have no word.

    Args:
        captions: (name of the item, caption).

    Raises:
        InputError: it lists them.
    """
    check_captions(encoders, captions)
    empty = [
        f"{name} ({caption!r})"
        for name, caption in captions
        if caption.strip() and not encoders.tokens(caption)  # of none at all the labels' rules tell
    ]
    if empty:
        more = ", ..." if len(empty) > _NAMED else ""
        got = f"{len(empty)} without: {', '.join(empty[:_NAMED])}{more}"
        raise InputError("captions", "at least one word in each", got, "Caption these pictures.")


def unknown_words(encoders: Encoders, captions: Iterable[str]) -> str:
    """A sentence about words that the encoders do not know, or ""."""
    words = {word for caption in captions for word in encoders.unknown(caption)}
    if not words:
        return ""
    listed = sorted(words)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return (
        f"Words that the encoders do not know: {', '.join(listed[:_NAMED])}{more}. They were in no "
        "caption of their training, and are all read as the same unknown word."
    )


def warn_of_unknown_words(encoders: Encoders, captions: Iterable[str]) -> None:
    """Log that sentence, if there is one."""
    if told := unknown_words(encoders, captions):
        logger.warning("%s", told)


def fitted(encoders: Encoders, pixels: Tensor) -> Tensor:
    """Pictures in the size that the encoders take, scaled bilinearly, smoothed where they shrink.

    Raises:
        InputError: no batch of square pictures.
    """
    square = pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[2] == pixels.shape[3]
    if not square or not pixels.is_floating_point():
        expected = "float [n, 3, s, s] in -1..1"
        raise InputError("pixels", expected, f"{pixels.dtype} {tuple(pixels.shape)}")
    size = (encoders.image_size, encoders.image_size)
    if pixels.shape[2:] == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)


def identity(encoders: Encoders) -> str:
    """SHA-256 (hex) of what they are made of and of a sample of their tensors as they are now."""
    digest = hashlib.sha256(json.dumps([encoders.kind, encoders.config]).encode())
    feed_tensors(digest, encoders.state_dict())
    return digest.hexdigest()


def device_of(encoders: Encoders) -> torch.device:
    """The device of their weights."""
    return next(encoders.parameters()).device
