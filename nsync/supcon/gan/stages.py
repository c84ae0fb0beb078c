"""What AttnGAN and DM-GAN have in common: pictures in stages, each of twice the side.

Both (arXiv 1711.10485, arXiv 1904.01310) draw a condition from the sentence, grow a small map from
it and noise, and then refine the map stage by stage, looking at the words before each. They differ
in how they look, which is `StagedGenerator`'s `look`, and in what normalises their discriminators,
which is `StageDiscriminator`'s `layer`. Sizes and widths are the published ones where the settings
are; at others:

- The first map has 16 widths where it is doubled four times and more, as theirs (64 px), and half
  as many for each doubling less.
- Discriminators halve the side to 4 px and double the width each time, up to 32 widths; then, as
  theirs, they halve the width until 8 are left. Where fewer halvings make fewer, those are kept.

Left out of both repositories, whose generators share this code:

- Their attention takes another item's mask where the batch has captions of different lengths: the
  mask is repeated item after item, the scores are laid out place after place (AttnGAN's issue 93).
  Here each item has its own.
- Their conditioning augmentation draws from global state; here the draw is a part of the noise.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...errors import InputError
from .contract import Judged, Painted, at_least, power_of_two

SMALLEST = 4
"""Side of the first feature map and of a discriminator's last one."""


@dataclass(frozen=True)
class Staged:
    """Settings of both. See `contract.Family`.

    Attributes:
        stages: how many pictures there are, each of half the next one's side.
        discriminator_width: channels that all others of the discriminators are multiples of.
        condition_width: numbers that are drawn from the sentence.
        residual_blocks: per refined stage.
    """

    image_size: int = 256
    stages: int = 3
    width: int = 32
    discriminator_width: int = 64
    noise: int = 100
    text_width: int = 256
    condition_width: int = 100
    residual_blocks: int = 2

    needs_vision: ClassVar[bool] = False
    needs_words: ClassVar[bool] = True

    def check(self) -> None:
        """Raise `InputError` for the first setting that cannot be."""
        at_least(2, stages=self.stages)
        power_of_two(SMALLEST * 2**self.stages, image_size=self.image_size)
        names = ("width", "discriminator_width", "noise", "text_width", "condition_width")
        at_least(1, **{name: getattr(self, name) for name in names})
        at_least(1, residual_blocks=self.residual_blocks)

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the pictures, stage by stage."""
        return tuple(self.image_size // 2**k for k in reversed(range(self.stages)))


class StagedGenerator(nn.Module):
    """`G_NET`.

    Args:
        settings: of the family.
        look: makes the module of a stage that lets the words in: of maps `[n, width, h, w]`, words
            and mask (`contract.Generator`) it makes `[n, 2 width, h, w]`.
    """

    def __init__(self, settings: Staged, look: Callable[[], nn.Module]) -> None:
        super().__init__()
        width, doublings = settings.width, _doublings(settings.sides[0])
        self.parts = (settings.noise, settings.condition_width)
        self.noise = sum(self.parts)
        self.condition = ConditioningAugmentation(settings.text_width, settings.condition_width)
        widths = [width * min(16, 2**k) for k in reversed(range(doublings + 1))]
        flat = widths[0] * SMALLEST**2
        self.start = nn.Sequential(
            nn.Linear(self.noise, 2 * flat, bias=False),
            nn.BatchNorm1d(2 * flat),
            nn.GLU(1),
            nn.Unflatten(1, (widths[0], SMALLEST, SMALLEST)),
        )
        self.grow = nn.Sequential(*(_doubled(widths[k], widths[k + 1]) for k in range(doublings)))
        later = settings.sides[1:]
        self.look = nn.ModuleList(look() for _ in later)
        self.refine = nn.ModuleList(_refined(width, settings.residual_blocks) for _ in later)
        self.out = nn.ModuleList(nn.Sequential(_conv(width, 3), nn.Tanh()) for _ in settings.sides)

    def forward(
        self,
        noise: Tensor,
        text: Tensor,
        words: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Painted:
        """See `contract.Generator`; the noise's last numbers are what the condition is drawn by."""
        if words is None:
            raise InputError("words", "float [n, l, t]: this family looks at words", "None")
        free, drawn = noise.split(self.parts, 1)
        condition, divergence = self.condition(text, drawn)
        maps = self.grow(self.start(torch.cat([condition, free], 1)))
        images = [self.out[0](maps)]
        for look, refine, out in zip(self.look, self.refine, self.out[1:], strict=True):
            maps = refine(look(maps, words, mask))
            images.append(out(maps))
        return Painted(tuple(images), divergence)


class ConditioningAugmentation(nn.Module):
    """`CA_NET`: a condition drawn around what the sentence says (StackGAN, arXiv 1612.03242).

    So near sentences have conditions in common, and the space between them is trained too.
    """

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(text, 4 * width), nn.GLU(1))

    def forward(self, text: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw.

        Args:
            text: float `[n, t]`.
            noise: float `[n, width]`, normal.

        Returns:
            The condition `[n, width]`, and the divergence `[n]` of what it is drawn from and a
            standard normal distribution: as published the mean over its numbers, not their sum.
        """
        mean, log_variance = self.encode(text).chunk(2, 1)
        condition = mean + noise * (log_variance / 2).exp()
        each = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        return condition, each.mean(1)


class StageDiscriminator(nn.Module):
    """`D_NET64`, `D_NET128`, `D_NET256` and their two `D_GET_LOGITS`, without their sigmoid.

    It observes the pictures themselves.

    Args:
        settings: of the family.
        side: of the stage's pictures.
        layer: `layer(width, out, halve=..., first=...)` makes a convolution with what normalises
            and bends it: 4 x 4 where it halves the side, else 3 x 3.
    """

    def __init__(self, settings: Staged, side: int, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        width, halvings = settings.discriminator_width, _doublings(side)
        widths = [width * min(32, 2**k) for k in range(halvings)]
        down = [layer(3, width, halve=True, first=True)]
        down += [layer(a, b, halve=True) for a, b in itertools.pairwise(widths)]
        last = widths[-1]
        while last > 8 * width:
            down.append(layer(last, last // 2))
            last //= 2
        self.see = nn.Sequential(*down)
        met = layer(last + settings.text_width, last)
        self.score = nn.Sequential(met, nn.Conv2d(last, 1, SMALLEST))
        self.unconditional = nn.Conv2d(last, 1, SMALLEST)

    def observe(self, images: Tensor) -> Tensor:
        """The pictures."""
        return images

    def features(self, observed: Tensor) -> Tensor:
        """`[n, d, 4, 4]`."""
        return self.see(observed)

    def judge(self, features: Tensor, text: Tensor) -> Judged:
        """See `contract.Discriminator`."""
        everywhere = text[:, :, None, None].expand(-1, -1, *features.shape[2:])
        score = self.score(torch.cat([features, everywhere], 1))
        unconditional = self.unconditional(features)
        return Judged(score.flatten(), features.mean((2, 3)), unconditional.flatten())


def attend(maps: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """What each place of a map reads at the words that it resembles.

    Source: AttnGAN, eq. 2 and before (`GlobalAttentionGeneral`); DM-GAN, key addressing and value
    reading (`Memory`).

    Args:
        maps: float `[n, d, h, w]`.
        keys: float `[n, l, d]`, of the words, for a place to be compared with by product.
        values: float `[n, l, e]`, what is read.
        mask: bool `[n, l]`, True where there is a word. Where there is none, nothing is read.

    Returns:
        `[n, e, h, w]`.
    """
    scores = keys @ maps.flatten(2)
    if mask is None:
        shares = scores.softmax(1)
    else:
        there = mask[:, :, None]
        # Not -inf, of which a text without any word would make NaN.
        lowest = torch.finfo(scores.dtype).min
        shares = scores.masked_fill(~there, lowest).softmax(1) * there
    return (values.transpose(1, 2) @ shares).unflatten(2, maps.shape[2:])


def begin(module: nn.Module) -> None:
    """Give a layer the weights it starts with, for `nn.Module.apply` (both's `weights_init`).

    A layer whose weight is parametrised has begun before it was.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)) and not parametrize.is_parametrized(module):
        nn.init.orthogonal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _doublings(side: int) -> int:
    return int(math.log2(side // SMALLEST))


def _conv(width: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(width, out, 3, padding=1, bias=False)


def _doubled(width: int, out: int) -> nn.Sequential:
    """`upBlock`."""
    gated = (_conv(width, 2 * out), nn.BatchNorm2d(2 * out), nn.GLU(1))
    return nn.Sequential(nn.Upsample(scale_factor=2), *gated)


def _refined(width: int, blocks: int) -> nn.Sequential:
    """`NEXT_STAGE_G` after its look at the words: from 2 widths to one of twice the side."""
    residual = (_Residual(2 * width) for _ in range(blocks))
    return nn.Sequential(*residual, _doubled(2 * width, width))


class _Residual(nn.Module):
    """`ResBlock`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _conv(width, 2 * width),
            nn.BatchNorm2d(2 * width),
            nn.GLU(1),
            _conv(width, width),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.inner(maps)
