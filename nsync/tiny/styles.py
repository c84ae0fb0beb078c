"""How the base's eight pretraining styles draw a scene, and the tools all styles share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import Canvas

PAPER = (0.95, 0.93, 0.88)
GROUND = (0.80, 0.82, 0.76)
INK = (0.16, 0.14, 0.14)


def rgb(colour: tuple[float, float, float]) -> Tensor:
    """A colour `[1, 3, 1, 1]`."""
    return torch.tensor(colour).view(1, 3, 1, 1)


def mix(under: Tensor, over: Tensor, amount: Tensor) -> Tensor:
    """Lay `over` on `under` with opacity `amount` `[n, h, w]` in 0..1."""
    return under + (over - under) * amount.unsqueeze(1)


def backdrop(c: Canvas, paper: Tensor, ground: Tensor) -> Tensor:
    """The background in two tones `[n, 3, 64, 64]`."""
    return mix(paper.expand(len(c.ground), 3, *c.ground.shape[1:]), ground, c.ground)


def line(distance: Tensor, width: float) -> Tensor:
    """Opacity of a line of this width in pixels along distance 0, antialiased."""
    return (width / 2 + 0.5 - distance.abs()).clamp(0, 1)


def stripes(t: Tensor, period: float, share: float) -> Tensor:
    """Opacity of stripes across `t` (pixels): on for `share` of each period, soft edges."""
    wave = (t / period - (t / period).floor() - 0.5).abs() * period
    return (share * period / 2 + 0.5 - wave).clamp(0, 1)


def dots(u: Tensor, v: Tensor, period: float, radius: Tensor | float) -> Tensor:
    """Opacity of round dots of this radius on a square lattice of this period."""
    du, dv = (torch.remainder(t, period) - period / 2 for t in (u, v))
    return (radius + 0.5 - torch.hypot(du, dv)).clamp(0, 1)


def blur(image: Tensor, radius: int) -> Tensor:
    """Binomial blur of `[n, c, h, w]`, about `radius` pixels, edges repeated."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    for _ in range(2 * radius):
        for shape in ((1, 1, 1, 3), (1, 1, 3, 1)):
            pad = (1, 1, 0, 0) if shape[-1] == 3 else (0, 0, 1, 1)
            channels = image.shape[1]
            weight = kernel.view(shape).expand(channels, 1, *shape[2:])
            image = F.conv2d(F.pad(image, pad, mode="replicate"), weight, groups=channels)
    return image


def _plain(c: Canvas) -> Tensor:
    return backdrop(c, rgb(PAPER), rgb(GROUND))


def flat(c: Canvas) -> Tensor:
    """Even fills, no line."""
    return mix(_plain(c), c.colour, c.inside)


def outline(c: Canvas) -> Tensor:
    """A coloured contour on paper, nothing inside."""
    base = mix(_plain(c), rgb(PAPER), torch.full_like(c.ground, 0.5))
    return mix(base, c.colour * 0.8, line(c.distance, 2.6))


def hatching(c: Canvas) -> Tensor:
    """Parallel diagonal strokes of colour within a thin contour."""
    strokes = stripes((c.x + c.y) * 0.707 + c.phase, 5.0, 0.42) * c.inside
    return mix(_plain(c), c.colour * 0.85, torch.maximum(strokes, line(c.distance, 1.2)))


def halftone(c: Canvas) -> Tensor:
    """Printed dots, fat inside the objects and fine in the ground."""
    screen = dots(c.x + c.phase, c.y + c.phase, 5.0, 0.6 + 1.5 * c.inside)
    tone = mix(rgb((0.62, 0.62, 0.62)).expand_as(_plain(c)), c.colour, c.inside)
    return mix(
        rgb((0.97, 0.96, 0.94)).expand_as(tone),
        tone,
        screen * (c.inside + 0.6 * c.ground).clamp(0, 1),
    )


def watercolour(c: Canvas) -> Tensor:
    """Pigment that bleeds over soft edges and pools unevenly."""
    wash = (0.72 + 0.25 * c.smooth()).clamp(0.25, 1)
    bleed = blur(((1.8 - c.distance + 1.1 * c.smooth()) / 4).clamp(0, 1).unsqueeze(1), 2)[:, 0]
    return mix(blur(_plain(c), 3) * 0.6 + 0.4, c.colour, bleed * wash)


def mosaic(c: Canvas) -> Tensor:
    """Square tiles of one tone each, a dark joint between them."""
    tiles = F.avg_pool2d(flat(c), 4)
    tiles = tiles + 0.05 * torch.randn(len(tiles), 1, 16, 16, generator=c.noise)
    joint = torch.maximum(*(1.0 * (torch.remainder(t, 4) < 1) for t in (c.x, c.y)))
    return F.interpolate(tiles, scale_factor=4) * (1 - 0.22 * joint)


def shading(c: Canvas) -> Tensor:
    """Solid bodies lit from the upper left, with a cast shadow."""
    light = (0.5 - 0.035 * ((c.x - c.centre_x) + (c.y - c.centre_y))).clamp(0, 1).unsqueeze(1)
    shadow = blur(c.inside.unsqueeze(1), 2).roll((4, 4), (2, 3))[:, 0]
    body = c.colour * (0.45 + 0.55 * light) + 0.45 * (light - 0.55).clamp(0, 1)
    return mix(mix(_plain(c), rgb(INK), 0.45 * shadow), body, c.inside)


def grain(c: Canvas) -> Tensor:
    """Even fills under coarse film grain."""
    return flat(c) * 0.92 + 0.11 * c.gaussian(2).unsqueeze(1)


Style = Callable[[Canvas], Tensor]

PRETRAIN: dict[str, Style] = {
    f.__name__: f for f in (flat, outline, hatching, halftone, watercolour, mosaic, shading, grain)
}

GENERIC_WORDS: dict[str, tuple[str, ...]] = {
    "painting": ("watercolour", "shading", "grain"),
    "illustration": ("outline", "hatching", "halftone"),
    "animation": ("flat", "mosaic", "shading"),
}
"""What hides behind the generic words in the base's training captions."""
