"""Ten styles made after the analysis was fixed: six whole ones, two palettes, two textures.

A whole style has a palette, a stroke and a texture, as those of `nsync.tiny.held_out` have. The
others start from `flat`, the world's plain render: even fills without a line, in the colours that
the captions name. One that is only a palette has its fills and edges and other colours; one that
is only a texture has its colours too, in more light and less.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nsync.draws import derive_seed
from nsync.tiny import world
from nsync.tiny.scenes import SIZE, Canvas, Scene, lay_out
from nsync.tiny.styles import Style, backdrop, blur, dots, flat, line, mix, rgb, stripes


def linocut(c: Canvas) -> Tensor:
    """One ink, the object's, on white: solid shapes, a bare rim, short gouges all around."""
    paper, ink = rgb((0.98, 0.97, 0.93)), c.colour * 0.8
    gouges = stripes(c.x - c.y + 2 * torch.sin(c.y * 0.3 + c.phase), 6.0, 0.4)
    gouges = gouges * stripes(c.x + c.y + c.phase * 4, 13.0, 0.6)
    bare = line(c.distance - 3.0, 5.0)
    printed = gouges * (0.55 + 0.45 * c.ground) * (1 - c.inside) * (1 - bare)
    worn = 1 - (c.gaussian(2) > 1.5).float() * 0.7
    return mix(paper.expand(len(c.ground), 3, SIZE, SIZE), ink, (printed + c.inside) * worn)


def cross_stitch(c: Canvas) -> Tensor:
    """Crosses of pale thread on sage cloth with a hole between each four, a dark back stitch."""
    u, v = (torch.remainder(t + c.phase, 6) - 3 for t in (c.x, c.y))
    arm = torch.minimum((u - v).abs(), (u + v).abs())
    cross = (1.9 - arm).clamp(0, 1) * (torch.maximum(u.abs(), v.abs()) < 2.6)
    hole = dots(c.x + c.phase + 3, c.y + c.phase + 3, 6.0, 0.6)
    image = backdrop(c, rgb((0.74, 0.80, 0.68)), rgb((0.58, 0.68, 0.56)))
    image = mix(image, rgb((0.34, 0.42, 0.34)), 0.85 * hole)
    image = mix(image, c.colour * 0.55, c.inside)
    image = mix(image, c.colour * 0.75 + 0.25, cross * c.inside)
    return mix(image, rgb((0.26, 0.06, 0.14)), line(c.distance - 0.6, 1.4))


def topographic(c: Canvas) -> Tensor:
    """A map: level lines that follow the objects, tints of height, a fine grid of degrees."""
    height = c.distance + 3.0 * c.smooth()
    near = torch.exp(-c.distance.clamp(min=0) / 14.0)
    image = backdrop(c, rgb((0.80, 0.86, 0.62)), rgb((0.62, 0.76, 0.50)))
    image = mix(image, rgb((0.96, 0.88, 0.62)), 0.9 * near)
    image = mix(image, rgb((0.50, 0.34, 0.16)), 0.85 * stripes(height, 6.0, 0.18))
    image = mix(image, c.colour * 0.85 + 0.12, c.inside)
    image = mix(image, c.colour * 0.4, 0.9 * stripes(c.distance, 4.0, 0.2) * c.inside)
    degrees = torch.maximum(stripes(c.x + c.phase, 21.0, 0.04), stripes(c.y + c.phase, 21.0, 0.04))
    return mix(image, rgb((0.20, 0.45, 0.75)), 0.5 * degrees)


def porcelain(c: Canvas) -> Tensor:
    """White glaze with blue veins, a cobalt brush line now thick, now thin, glassy fills."""
    image = backdrop(c, rgb((0.96, 0.98, 1.0)), rgb((0.76, 0.86, 0.98)))
    image = mix(image, rgb((0.34, 0.50, 0.86)), 0.75 * line(9 * c.smooth(), 2.2))
    image = mix(image, rgb((0.34, 0.50, 0.86)), 0.75 * line(9 * c.smooth(), 1.6))
    shine = torch.exp(-((c.x - c.centre_x + 4) ** 2 + (c.y - c.centre_y + 5) ** 2) / 40.0)
    image = mix(image, c.colour * 0.9 + 0.06, c.inside)
    image = mix(image, rgb((1.0, 1.0, 1.0)), 0.7 * shine * c.inside)
    thick = 2.4 + 1.2 * torch.sin(0.35 * (c.x - c.y) + c.phase)
    brush = (thick / 2 + 0.5 - (c.distance - 0.7).abs()).clamp(0, 1)
    return mix(image, rgb((0.08, 0.16, 0.55)), brush)


def graffiti(c: Canvas) -> Tensor:
    """Sprayed on a wall of bricks: a cloud of colour, a white halo, paint that runs down."""
    row = torch.floor(c.y / 7)
    joint = torch.maximum(
        1.0 * (torch.remainder(c.y, 7) < 1.3),
        1.0 * (torch.remainder(c.x + 6.5 * torch.remainder(row, 2), 13) < 1.3),
    )
    image = backdrop(c, rgb((0.62, 0.36, 0.27)), rgb((0.47, 0.27, 0.22)))
    image = image * (1 + 0.07 * c.gaussian(4)).unsqueeze(1)
    image = mix(image, rgb((0.80, 0.74, 0.66)), joint.expand_as(c.distance))
    halo = ((7 - c.distance) / 5).clamp(0, 1) * (0.85 + 0.15 * c.gaussian(1)).clamp(0, 1)
    image = mix(image, rgb((0.97, 0.96, 0.93)), halo)
    spray = blur(c.inside.unsqueeze(1), 1)[:, 0]
    runs = torch.stack([c.inside.roll(k, 1) for k in range(1, 9)]).amax(0)
    runs = runs * stripes(c.x + c.phase * 3, 9.0, 0.16)
    return mix(image, (c.colour * 1.1).clamp(0, 1), torch.maximum(spray, runs))


def dot_painting(c: Canvas) -> Tensor:
    """Dots on red earth, in rings of ochre and cream about the objects; dark solid fills."""
    band = torch.remainder(torch.floor(c.distance / 7), 2)
    image = backdrop(c, rgb((0.44, 0.17, 0.10)), rgb((0.26, 0.10, 0.08)))
    ring = mix(rgb((0.93, 0.66, 0.22)).expand_as(image), rgb((0.97, 0.92, 0.80)), band)
    spots = dots(c.x + c.phase, c.y + c.phase, 5.0, 1.5)
    image = mix(image, ring, spots * (1 - c.inside))
    image = mix(image, c.colour, c.inside)
    image = mix(image, c.colour * 0.4 + 0.6, 0.85 * spots * (c.distance < -1.5))
    return mix(image, rgb((0.05, 0.03, 0.03)), line(c.distance - 0.5, 2.2))


def _recoloured(c: Canvas, paper: Tensor, ground: Tensor, colour: Tensor) -> Tensor:
    """`flat` in other colours."""
    return mix(backdrop(c, paper, ground), colour, c.inside)


def sepia(c: Canvas) -> Tensor:
    """Only a palette: everything drawn towards brown, as an old print has it."""
    colour = c.colour * 0.55 + rgb((0.16, 0.07, 0.0))
    return _recoloured(c, rgb((0.89, 0.77, 0.57)), rgb((0.77, 0.63, 0.43)), colour)


def midnight(c: Canvas) -> Tensor:
    """Only a palette: pale colours on deep blue."""
    colour = c.colour * 0.75 + rgb((0.15, 0.18, 0.25))
    return _recoloured(c, rgb((0.10, 0.12, 0.30)), rgb((0.05, 0.05, 0.16)), colour)


def canvas(c: Canvas) -> Tensor:
    """Only a texture: the weave of a coarse cloth, threads over and under."""
    warp, weft = (torch.sin(t * 0.95 + c.phase) for t in (c.x, c.y))
    return flat(c) * (0.82 + 0.2 * warp * weft).unsqueeze(1)


def streaks(c: Canvas) -> Tensor:
    """Only a texture: the long marks of a dry brush, drawn from left to right."""
    rough = c.gaussian(2)
    marks = torch.stack([rough.roll(k, 2) for k in range(0, 20, 2)]).mean(0)
    return flat(c) * (0.85 + 0.36 * marks).unsqueeze(1)


WHOLE: dict[str, Style] = {
    f.__name__: f for f in (linocut, cross_stitch, topographic, porcelain, graffiti, dot_painting)
}
PALETTES: dict[str, Style] = {f.__name__: f for f in (sepia, midnight)}
TEXTURES: dict[str, Style] = {f.__name__: f for f in (canvas, streaks)}
LATER_RULER_FILE = Path(__file__).parent / "ruler.safetensors"
"""A ruler of the world's styles and these (`scripts/tiny/train_ruler.py --later`)."""

LATER: dict[str, Style] = WHOLE | PALETTES | TEXTURES


def render(scenes: Sequence[Scene], style: str, seed: int) -> Tensor:
    """As `nsync.tiny.world.render`, of its styles and the later ones.

    Raises:
        InputError: if the style is unknown.
    """
    if style not in LATER:
        return world.render(scenes, style, seed)
    return LATER[style](lay_out(scenes, derive_seed(seed, style))).clamp(0, 1)
