"""SSA-GAN: one stage, text let in where masks say so (arXiv 2104.00567).

Structure by `model.py` of github.com/wtliao/text2image (3063e27), at any width and picture size;
with 256 px, 256 text features and 100 mask channels it is that network, weight by weight
(`scripts/agreement/gans.py`). Where ours is not theirs:

- They write out seven blocks for 256 px. Here there is one per doubling from 4 px, and the last
  three halve the width, as theirs do.
- Their discriminator's blocks own a 1x1 convolution that is not used where the width stays.
- Their batch normalisation spans GPUs under their own data parallelism, where epsilon is a floor
  of the variance instead of being added to it. Ours is torch's, which theirs is on one device;
  `nn.SyncBatchNorm.convert_sync_batchnorm` makes it span processes.
- They return the masks beside the picture, to save them as pictures. Training does not use them.

Batch statistics make a picture depend on its batch until `eval()`; sample in eval mode.
"""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import Judged, Networks, Painted, at_least, power_of_two

SMALLEST = 4
"""Side of the first feature map and of the discriminator's last one."""


@dataclass(frozen=True)
class SsaGan:
    """Settings; the defaults are the published ones. See `contract.Family`.

    Attributes:
        mask_width: channels of the layer that predicts a mask.
    """

    image_size: int = 256
    width: int = 64
    noise: int = 100
    text_width: int = 256
    mask_width: int = 100

    needs_vision: ClassVar[bool] = False
    needs_words: ClassVar[bool] = False
    judges_alone: ClassVar[bool] = True

    def check(self) -> None:
        """Raise `InputError` for the first setting that cannot be."""
        power_of_two(2 * SMALLEST, image_size=self.image_size)
        sizes = {"width": self.width, "noise": self.noise, "text_width": self.text_width}
        at_least(1, **sizes, mask_width=self.mask_width)

    @property
    def doublings(self) -> int:
        """From the smallest feature map to the picture."""
        return int(math.log2(self.image_size // SMALLEST))

    def build(self, vision: nn.Module | None = None) -> Networks:
        """Untrained networks; see `contract.Family`."""
        self.check()
        return Networks(SsaGenerator(self), nn.ModuleList([SsaDiscriminator(self)]))


class SsaGenerator(nn.Module):
    """`NetG`. Each block is told by the mask of the one before where the text has a say."""

    def __init__(self, settings: SsaGan) -> None:
        super().__init__()
        self.noise = settings.noise
        last = settings.doublings
        widths = [settings.width * min(8, 2 ** (last - k)) for k in range(last + 1)]
        self.first = settings.width * 8
        self.start = nn.Linear(settings.noise, self.first * SMALLEST**2)
        self.start_mask = _mask_layers(self.first, settings.mask_width)
        pairs = itertools.pairwise([self.first, *widths])
        self.blocks = nn.ModuleList(_PaintBlock(*pair, settings.text_width) for pair in pairs)
        # The last block is followed by no other: it needs no mask.
        self.masks = nn.ModuleList(_mask_layers(w, settings.mask_width) for w in widths[:-1])
        self.out = nn.Sequential(
            nn.BatchNorm2d(settings.width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(settings.width, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(
        self,
        noise: Tensor,
        text: Tensor,
        words: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Painted:
        """See `contract.Generator`; one stage, and words are not looked at."""
        maps = self.start(noise).view(len(noise), self.first, SMALLEST, SMALLEST)
        seen = self.start_mask(maps)
        for k, block in enumerate(self.blocks):
            if k > 0:
                maps = F.interpolate(maps, scale_factor=2)
                # What is interpolated is the mask's logit, and between corners: both as published.
                seen = F.interpolate(seen, size=maps.shape[2:], mode="bilinear", align_corners=True)
            maps = block(maps, text, seen.sigmoid())
            if k < len(self.masks):
                seen = self.masks[k](maps)
        return Painted((self.out(maps),), noise.new_zeros(len(noise)))


class SsaDiscriminator(nn.Module):
    """`NetD` and its `D_GET_LOGITS`; it observes the pictures themselves."""

    def __init__(self, settings: SsaGan) -> None:
        super().__init__()
        widths = [settings.width * min(16, 2**k) for k in range(settings.doublings + 1)]
        self.start = nn.Conv2d(3, settings.width, 3, padding=1)
        self.blocks = nn.ModuleList(_SeeBlock(*pair) for pair in itertools.pairwise(widths))
        self.score = nn.Sequential(
            nn.Conv2d(
                widths[-1] + settings.text_width, settings.width * 2, 3, padding=1, bias=False
            ),
            nn.LeakyReLU(0.2),
            nn.Conv2d(settings.width * 2, 1, SMALLEST, bias=False),
        )

    def observe(self, images: Tensor) -> Tensor:
        """The pictures."""
        return images

    def features(self, observed: Tensor) -> Tensor:
        """`[n, d, 4, 4]`."""
        maps = self.start(observed)
        for block in self.blocks:
            maps = block(maps)
        return maps

    def judge(self, features: Tensor, text: Tensor) -> Judged:
        """See `contract.Discriminator`."""
        everywhere = text[:, :, None, None].expand(-1, -1, *features.shape[2:])
        score = self.score(torch.cat([features, everywhere], 1))
        return Judged(score.flatten(), features.mean((2, 3)))


class _PaintBlock(nn.Module):
    """`G_Block`: a residual block whose normalisations are told what the text says, and where."""

    def __init__(self, width: int, out: int, text: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        self.told1, self.conv1 = _Told(width, text), nn.Conv2d(width, out, 3, padding=1)
        self.told2, self.conv2 = _Told(out, text), nn.Conv2d(out, out, 3, padding=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        inner = self.conv1(self.told1(maps, text, mask).relu())
        inner = self.conv2(self.told2(inner, text, mask).relu())
        return self.shortcut(maps) + self.gamma * inner


class _Told(nn.Module):
    """`affine`: batch normalisation, scaled and shifted as the text says, as far as the mask is."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.scale, self.shift = _from_text(text, width), _from_text(text, width)

    def forward(self, maps: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        scale, shift = (part(text)[:, :, None, None] * mask for part in (self.scale, self.shift))
        return (1 + scale) * self.norm(maps) + shift


class _SeeBlock(nn.Module):
    """`resD`: halves the side."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        # Theirs has this layer where the width stays, too, and does not use it.
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        self.inner = nn.Sequential(
            nn.Conv2d(width, out, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(self.shortcut(maps), 2) + self.gamma * self.inner(maps)


def _from_text(text: int, width: int) -> nn.Sequential:
    """Says nothing at first: its last layer starts from zero."""
    last = nn.Linear(text, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(text, text), nn.ReLU(), last)


def _mask_layers(width: int, hidden: int) -> nn.Sequential:
    """To the logit of a mask, `[n, 1, h, w]`."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, 3, padding=1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, 1, 1),
    )
