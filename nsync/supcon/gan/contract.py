"""What a family of text-to-image GANs has to be, for one loop to train and one sampler to use it.

A family may paint in stages, small pictures first. So pictures always come as a tuple, one batch
per stage with the finished one last, and each stage has a discriminator of its own; a family of one
stage has one of each. Whatever goes over stages is then `zip(painted.images, discriminators)`.

A discriminator works in three steps, because a step of training needs their parts apart:

    observed = d.observe(images)            what the trained part is shown
    features = d.features(observed)         once per picture
    judged = d.judge(features, text)        as often as there are texts: matching, mismatched

Gradient penalties are taken with regard to `observed`.

Nothing here draws: all randomness of a picture is in its noise, which the caller gives.
"""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from ...errors import InputError


class Painted(NamedTuple):
    """What a generator makes of noise and text.

    Attributes:
        images: per stage float `[n, 3, s, s]` in -1..1, the last as large as the family's
            `image_size`.
        divergence: float `[n]`, 0 or more: how far from normal noise the generator has moved what
            it draws from the text (`stages.ConditioningAugmentation`). A part of the generator's
            loss; 0 in families that draw nothing from it.
    """

    images: tuple[Tensor, ...]
    divergence: Tensor


class Judged(NamedTuple):
    """What a discriminator makes of pictures.

    Attributes:
        score: float `[n]`, higher for "real, and what the text says"; not bounded.
        features: float `[n, d]`, of the pictures alone (the mean over the places of the last
            feature map), so equal for every text.
        unconditional: float `[n]`, higher for "real", whatever the text says; not bounded. None
            in families that do not ask this apart.
    """

    score: Tensor
    features: Tensor
    unconditional: Tensor | None = None


class Generator(Protocol):
    """A module that paints.

    Attributes:
        noise: how many numbers it wants per picture: those of its family's `noise`, and others that
            it may need beside them.
    """

    noise: int

    def __call__(
        self, noise: Tensor, text: Tensor, words: Tensor | None = None, mask: Tensor | None = None
    ) -> Painted:
        """Paint.

        Args:
            noise: float `[n, z]`, normal.
            text: float `[n, t]`, a feature per sentence.
            words: float `[n, l, t]`, a feature per word, for families that look at words.
            mask: bool `[n, l]`, True where there is a word. None: everywhere.

        Raises:
            InputError: no words, and the family looks at them.
        """
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...


class Discriminator(Protocol):
    """A module that judges the pictures of one stage; see the top."""

    def observe(self, images: Tensor) -> Tensor:
        """The pictures, `[n, 3, s, s]` in -1..1, or what a frozen network sees in them."""
        ...

    def features(self, observed: Tensor) -> Tensor:
        """A feature map `[n, d, h, w]`."""
        ...

    def judge(self, features: Tensor, text: Tensor) -> Judged:
        """Feature maps, row by row with a text `[n, t]`."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...


class Networks(NamedTuple):
    """A generator and, per stage, its discriminator (a list of modules, so it saves as one)."""

    generator: nn.Module
    discriminators: nn.ModuleList


class Family(Protocol):
    """The settings of a family: a frozen dataclass of plain values, which a file can hold.

    Attributes:
        image_size: side of the finished picture.
        width: channels that all others, or all others of the generator, are multiples of.
        noise: numbers per picture; a generator may want more (`Generator.noise`).
        text_width: of the sentence features, and of the words'.
        needs_vision: the family is built on a frozen CLIP vision tower, which `build` is given.
        needs_words: the generator looks at words.
        judges_alone: the discriminators judge each picture by itself. Without (they have batch
            normalisation) no gradient penalty can be taken, and real and generated pictures, and
            matching and mismatched texts, are to be judged in calls of their own.
    """

    image_size: int
    width: int
    noise: int
    text_width: int
    needs_vision: ClassVar[bool]
    needs_words: ClassVar[bool]
    judges_alone: ClassVar[bool]

    def check(self) -> None:
        """Raise `InputError` for the first setting that cannot be."""
        ...

    def build(self, vision: nn.Module | None = None) -> Networks:
        """Untrained networks, on the CPU, from torch's own random state.

        Args:
            vision: see `needs_vision`; families without look at no tower.

        Raises:
            InputError: as `check`; a tower is needed and missing, or does not fit the settings.
        """
        ...


def at_least(least: int, **values: int) -> None:
    """Settings that are whole numbers.

    Raises:
        InputError: the first that is none, or is smaller.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(name, f"a whole number of {least} or more", repr(value))


def power_of_two(least: int, **values: int) -> None:
    """Settings that are sides of pictures, halved until 4 px are left.

    Raises:
        InputError: the first that is no power of two, or is smaller.
    """
    at_least(1, **values)
    for name, value in values.items():
        if value < least or value & (value - 1):
            raise InputError(name, f"a power of two of {least} or more", repr(value))
