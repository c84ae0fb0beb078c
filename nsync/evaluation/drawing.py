"""Drawing the arms of a comparison: the same captions and seeds by every model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoiser import Denoiser, SamplerSettings
from ..pictures.images import to_uint8
from .arms import Arm

_TOGETHER = 4  # pictures between two looks at the stop button


@dataclass(frozen=True)
class Comparison:
    """What every arm draws.

    Attributes:
        captions: contents, without a word about the style.
        token: stands for the style in the prompts.
        template: with {caption} and {token}.
        seed: of the first picture of each caption; the next has the next seed.
        per_caption: pictures of each caption.
        size: (width, height) in pixels.
        drift: draw the bare captions as well, to see what has become of everything else.
    """

    captions: tuple[str, ...]
    token: str
    template: str
    seed: int
    per_caption: int
    size: tuple[int, int]
    sampler: SamplerSettings
    drift: bool

    @property
    def contents(self) -> tuple[str, ...]:
        """The caption of each picture."""
        return tuple(caption for caption in self.captions for _ in range(self.per_caption))

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [self.seed + i for _ in self.captions for i in range(self.per_caption)]

    def prompts(self, word: str) -> tuple[str, ...]:
        """The prompt of each picture, with a word that stands for the style."""
        return tuple(self.template.format(caption=c, token=word) for c in self.contents)


def arm_of(
    comparison: Comparison,
    denoiser: Denoiser,
    name: str,
    word: str,
    on_item: Callable[[int, int], None],
) -> Arm:
    """What a model makes of a comparison.

    Args:
        word: what stands for the style in this arm's prompts.
        on_item: called with (pictures done, pictures in all); may raise to stop.
    """
    prompts, contents = comparison.prompts(word), comparison.contents
    total = len(prompts) * (2 if comparison.drift else 1)
    pictures = _draw(comparison, denoiser, prompts, lambda done: on_item(done, total))
    plain: tuple[Tensor, ...] = ()
    if comparison.drift:
        plain = _draw(
            comparison, denoiser, contents, lambda done: on_item(len(prompts) + done, total)
        )
    return Arm(name, pictures, prompts, contents, plain)


def _draw(
    comparison: Comparison,
    denoiser: Denoiser,
    prompts: Sequence[str],
    on_item: Callable[[int], None],
) -> tuple[Tensor, ...]:
    drawn: list[Tensor] = []
    for start in range(0, len(prompts), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        seeds = comparison.seeds[part]
        pixels = denoiser.generate(prompts[part], seeds, comparison.size, comparison.sampler)
        drawn += to_uint8(pixels)
        on_item(len(drawn))
    return tuple(drawn)
