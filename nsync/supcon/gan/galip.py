"""GALIP: a frozen CLIP tower looks for the discriminator and thinks for the generator.

Published as arXiv 2301.12959; structure by `code/models/GALIP.py` of github.com/tobran/GALIP
(35d0c2f), at any width, picture size and tower. With ViT-B/32, 224 px and the defaults it is that
network, weight by weight (`scripts/agreement/gans.py`). Where ours is not theirs, beside what
`clip_tower` says:

- Theirs paints 224 px whatever size it is asked for, which only decides how many blocks there are.
  Here the blocks double from the first power of two above the tower's grid, up to `image_size`.
- Theirs judges with two 4 x 4 convolutions, which take a grid of 7 to one place. For other grids
  they are as large as needed to end in one place.
- Theirs has no bound on the pictures (the tanh is commented out) and clamps them where they are
  shown. Here, too, training sees them unbounded, so that gradients reach what is too bright; in
  eval mode they are clamped.
- Theirs makes the first block after the tower as wide as 8 widths, which fits the next one only
  from 32 px on. Here it is as wide as the next one takes.
- Their discriminator's blocks own a 1x1 convolution that is not used where the width stays.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from .clip_tower import ClipTower
from .contract import Judged, Networks, Painted, at_least


@dataclass(frozen=True)
class Galip:
    """Settings; the defaults are the published ones, for ViT-B/32. See `contract.Family`.

    Attributes:
        code_width: channels of the map that the bridge begins with.
        bridge_width: channels inside the bridge's blocks.
        seen_width: channels of the discriminator's features.
        joint_width: channels where features and text have met.
        watched: layers of the tower, from 0, whose features the discriminator is shown.
        prompted: layers of the tower, from 0, that get a token from text and noise.
    """

    image_size: int = 224
    width: int = 64
    noise: int = 100
    text_width: int = 512
    code_width: int = 64
    bridge_width: int = 32
    seen_width: int = 512
    joint_width: int = 128
    watched: tuple[int, ...] = (1, 4, 8)
    prompted: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)

    needs_vision: ClassVar[bool] = True
    needs_words: ClassVar[bool] = False
    judges_alone: ClassVar[bool] = True

    def check(self) -> None:
        """Raise `InputError` for the first setting that cannot be."""
        names = ("width", "noise", "text_width", "code_width", "bridge_width", "seen_width")
        at_least(8, image_size=self.image_size)
        at_least(1, **{n: getattr(self, n) for n in names}, joint_width=self.joint_width)
        for name, layers in (("watched", self.watched), ("prompted", self.prompted)):
            whole = all(isinstance(k, int) and k >= 0 for k in layers)
            if not layers or not whole or list(layers) != sorted(set(layers)):
                raise InputError(name, "numbers of layers from 0, ascending", repr(layers))

    def build(self, vision: nn.Module | None = None) -> Networks:
        """Untrained networks around `vision`, which gets frozen; see `contract.Family`."""
        self.check()
        tower = ClipTower(vision)
        for name, layers in (("watched", self.watched), ("prompted", self.prompted)):
            if layers[-1] >= tower.count:
                rule = f"layers 0 to {tower.count - 1}, which the tower has"
                raise InputError(name, rule, repr(layers))
        if self.image_size <= tower.grid:
            rule = f"more than the tower's grid of {tower.grid}"
            raise InputError("image_size", rule, repr(self.image_size))
        discriminator = GalipDiscriminator(self, tower)
        return Networks(GalipGenerator(self, tower), nn.ModuleList([discriminator]))


class GalipGenerator(nn.Module):
    """`NetG`: the bridge into and out of the tower, and the blocks that paint."""

    def __init__(self, settings: Galip, tower: ClipTower) -> None:
        super().__init__()
        self.noise = settings.noise
        told = settings.noise + settings.text_width
        sides = _sides(tower.grid, settings.image_size)
        widths = [settings.width * min(8, 2**k) for k in reversed(range(len(sides) + 1))]
        self.code = (settings.code_width, tower.grid, tower.grid)
        self.start = nn.Linear(settings.noise, settings.code_width * tower.grid**2)
        self.bridge = _Bridge(settings, tower, told, widths[0])
        pairs = zip(itertools.pairwise(widths), sides, strict=True)
        self.blocks = nn.ModuleList(_PaintBlock(told, *pair) for pair in pairs)
        self.out = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 3, 3, padding=1))

    def forward(
        self,
        noise: Tensor,
        text: Tensor,
        words: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Painted:
        """See `contract.Generator`; one stage, words are not looked at, -1..1 in eval mode only."""
        told = torch.cat([noise, text], 1)
        maps = self.bridge(self.start(noise).unflatten(1, self.code), told)
        for block in self.blocks:
            maps = block(maps, told)
        images = self.out(maps)
        shown = images if self.training else images.clamp(-1, 1)
        return Painted((shown,), noise.new_zeros(len(noise)))


class GalipDiscriminator(nn.Module):
    """`NetD` and `NetC`; it observes what the tower sees, `[n, layers, width, grid, grid]`."""

    def __init__(self, settings: Galip, tower: ClipTower) -> None:
        super().__init__()
        self.tower, self.watched = tower, settings.watched
        later = settings.watched[1:]
        self.blocks = nn.ModuleList(_SeeBlock(tower.width, tower.width, fed=True) for _ in later)
        self.last = _SeeBlock(tower.width, settings.seen_width, fed=False)
        first = (tower.grid + 1) // 2
        met = settings.seen_width + settings.text_width
        self.score = nn.Sequential(
            nn.Conv2d(met, settings.joint_width, first, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(settings.joint_width, 1, tower.grid - first + 1, bias=False),
        )

    def observe(self, images: Tensor) -> Tensor:
        """What the tower's watched layers see; gradients flow back to the pictures."""
        return self.tower.look(images, self.watched)

    def features(self, observed: Tensor) -> Tensor:
        """`[n, d, grid, grid]`."""
        maps = observed[:, 0]
        for k, block in enumerate(self.blocks):
            maps = block(maps, observed[:, k + 1])
        return self.last(maps)

    def judge(self, features: Tensor, text: Tensor) -> Judged:
        """See `contract.Discriminator`."""
        everywhere = text[:, :, None, None].expand(-1, -1, *features.shape[2:])
        score = self.score(torch.cat([features, everywhere], 1))
        return Judged(score.flatten(), features.mean((2, 3)))


class _Bridge(nn.Module):
    """`CLIP_Adapter`: predicts features that the tower can go on from, and prompts for it."""

    SHARE = 0.1  # of what the tower makes of them, added to the features

    def __init__(self, settings: Galip, tower: ClipTower, told: int, out: int) -> None:
        super().__init__()
        self.tower, self.prompted = tower, settings.prompted
        code, inner = settings.code_width, settings.bridge_width
        self.blocks = nn.ModuleList(_BridgeBlock(code, inner, told) for _ in range(4))
        self.enter = nn.Conv2d(code, tower.width, 5, padding=2)
        self.prompts = nn.Linear(told, tower.width * len(settings.prompted))
        self.leave = nn.Conv2d(tower.width, out, 5, padding=2)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        prompts = self.prompts(told).unflatten(1, (len(self.prompted), self.tower.width))
        for block in self.blocks:
            maps = block(maps, told)
        predicted = self.enter(maps)
        thought = self.tower.think(predicted, prompts, self.prompted)
        return self.leave(predicted + self.SHARE * thought)


class _BridgeBlock(nn.Module):
    """`M_Block`, of equal widths."""

    def __init__(self, width: int, inner: int, told: int) -> None:
        super().__init__()
        self.conv1, self.told1 = nn.Conv2d(width, inner, 3, padding=1), _Told(told, inner)
        self.conv2, self.told2 = nn.Conv2d(inner, width, 3, padding=1), _Told(told, width)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        return maps + self.told2(self.conv2(self.told1(self.conv1(maps), told)), told)


class _PaintBlock(nn.Module):
    """`G_Block`: enlarges to its side by the nearest pixel, then adds what it was told."""

    def __init__(self, told: int, widths: tuple[int, int], side: int) -> None:
        super().__init__()
        width, out = widths
        self.side = side
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        self.told1, self.conv1 = _Told(told, width), nn.Conv2d(width, out, 3, padding=1)
        self.told2, self.conv2 = _Told(told, out), nn.Conv2d(out, out, 3, padding=1)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        maps = F.interpolate(maps, size=(self.side, self.side))
        inner = self.conv1(self.told1(maps, told))
        return self.shortcut(maps) + self.conv2(self.told2(inner, told))


class _SeeBlock(nn.Module):
    """`D_Block`, residual; `fed` adds what a later layer of the tower sees."""

    def __init__(self, width: int, out: int, *, fed: bool) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        self.inner = nn.Sequential(
            nn.Conv2d(width, out, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.gamma = nn.Parameter(torch.zeros(1))
        if fed:
            self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor, seen: Tensor | None = None) -> Tensor:
        made = self.shortcut(maps) + self.gamma * self.inner(maps)
        return made if seen is None else made + self.beta * seen


class _Told(nn.Module):
    """`DFBLK`: twice scaled and shifted as text and noise say, each time bent."""

    def __init__(self, told: int, width: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_from_told(told, width, 1.0) for _ in range(2))
        self.shifts = nn.ModuleList(_from_told(told, width, 0.0) for _ in range(2))

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            moved = scale(told)[:, :, None, None] * maps + shift(told)[:, :, None, None]
            maps = F.leaky_relu(moved, 0.2)
        return maps


def _from_told(told: int, width: int, begin: float) -> nn.Sequential:
    """Says `begin` to every channel at first."""
    last = nn.Linear(width, width)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, begin)
    return nn.Sequential(nn.Linear(told, width), nn.ReLU(), last)


def _sides(grid: int, image_size: int) -> Sequence[int]:
    """Of the blocks that paint: powers of two above the grid and below the picture, and that."""
    powers = (2**k for k in itertools.count(1))
    between = itertools.takewhile(lambda side: side < image_size, powers)
    return [side for side in between if side > grid] + [image_size]
