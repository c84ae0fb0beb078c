"""What a picture of the tiny world shows: its content, in words and in geometry.

A scene is exact ground truth: shape, colour, place, count and background. How it is drawn is the
style's affair (:mod:`nsync.tiny.styles`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..draws import generator

SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (0.86, 0.18, 0.16),
    "yellow": (0.95, 0.77, 0.14),
    "green": (0.18, 0.62, 0.28),
    "blue": (0.16, 0.36, 0.84),
    "purple": (0.56, 0.24, 0.66),
}
PLACES = {
    "in the centre": (32.0, 32.0),
    "on the left": (18.0, 32.0),
    "on the right": (46.0, 32.0),
    "at the top": (32.0, 18.0),
    "at the bottom": (32.0, 46.0),
}
COUNTS = ("a", "two", "three")
BACKGROUNDS = ("plain", "horizon", "hill")
RADIUS, SPACING = (13.0, 10.5, 8.8), (0.0, 24.0, 20.0)


@dataclass(frozen=True)
class Scene:
    """One scene; every field indexes the table of its name (`count` 0 is one object)."""

    shape: int
    colour: int
    place: int
    count: int
    background: int

    def caption(self) -> str:
        """The whole content in plain English, without a word about style."""
        noun = counted(SHAPES[self.shape], self.count)
        thing = f"{COUNTS[self.count]} {tuple(COLOURS)[self.colour]} {noun}"
        where = tuple(PLACES)[self.place]
        behind = ("", " over a horizon", " over a hill")[self.background]
        return f"{thing} {where}{behind}"


def counted(noun: str, count: int) -> str:
    """The noun of one thing, or of several where `count` (see `Scene`) is not 0."""
    if not count:
        return noun
    return noun + ("es" if noun.endswith("s") else "s")


def draw_scenes(n: int, seed: int) -> list[Scene]:
    """`n` scenes, each field uniform and independent; the i-th depends on (seed, i) only."""
    tables = (SHAPES, COLOURS, PLACES, COUNTS, BACKGROUNDS)
    scenes = []
    for i in range(n):
        g = generator(seed, "scene", i)
        scenes.append(Scene(*(int(torch.randint(len(t), (), generator=g)) for t in tables)))
    return scenes


@dataclass(frozen=True)
class Canvas:
    """A batch of scenes as geometry, `[n, 64, 64]` unless said otherwise, in pixels.

    Attributes:
        x, y: pixel centres `[64, 64]`.
        distance: signed distance to the nearest outline, negative inside an object.
        inside: 1 inside objects, 0 outside, a one-pixel ramp between.
        colour: the objects' colour `[n, 3, 1, 1]`, 0..1.
        ground: 1 where the background's second tone lies, 0 elsewhere.
        centre_x, centre_y: the middle of the group of objects `[n, 1, 1]`.
        phase: a random angle per picture `[n, 1, 1]`, so that textures never align.
        noise: smooth and rough noise draw from this generator.
    """

    x: Tensor
    y: Tensor
    distance: Tensor
    inside: Tensor
    colour: Tensor
    ground: Tensor
    centre_x: Tensor
    centre_y: Tensor
    phase: Tensor
    noise: torch.Generator

    def gaussian(self, cell: int = 1) -> Tensor:
        """Standard normal noise `[n, 64, 64]`, constant over cells of `cell` pixels."""
        n, side = len(self.distance), SIZE // cell
        coarse = torch.randn(n, side, side, generator=self.noise)
        return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)

    def smooth(self, waves: int = 3) -> Tensor:
        """Slow random undulation `[n, 64, 64]` in about -1..1: a few long waves added up."""
        n = len(self.distance)
        total = torch.zeros(n, SIZE, SIZE)
        for _ in range(waves):
            k = torch.randn(2, n, 1, 1, generator=self.noise) * 0.13
            shift = torch.rand(n, 1, 1, generator=self.noise) * 6.283
            total = total + torch.sin(k[0] * self.x + k[1] * self.y + shift)
        return total / waves**0.5


def _shape_distance(shape: Tensor, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Signed distance in pixels of every shape at offset (x, y) from its centre, radius r."""
    u, v = x / r, y / r
    square = torch.maximum(u.abs(), v.abs()) - 0.86
    bar, reach = torch.minimum(u.abs(), v.abs()) - 0.32, torch.maximum(u.abs(), v.abs()) - 1.0
    radial = torch.hypot(u, v)
    triangle = torch.maximum(v - 0.72, u.abs() * 0.866 - v * 0.5 - 0.5)
    options = (
        radial - 1.0,
        square,
        triangle,
        torch.maximum(bar, reach),
        (radial - 0.76).abs() - 0.26,
    )
    stacked = torch.stack(options)
    return stacked.gather(0, shape.view(1, -1, 1, 1).expand(1, *stacked.shape[1:]))[0] * r


def lay_out(scenes: Sequence[Scene], seed: int) -> Canvas:
    """Place the scenes on canvases, each with its own small jitter of position and size."""
    n, g = len(scenes), generator(seed, "layout")
    fields = torch.tensor([[s.shape, s.colour, s.place, s.count, s.background] for s in scenes])
    shape, colour, place, count, background = fields.T
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    jitter = lambda scale: (torch.rand(n, 1, 1, generator=g) * 2 - 1) * scale  # noqa: E731
    middle = torch.tensor(list(PLACES.values()))[place]
    cx, cy = middle[:, 0].view(-1, 1, 1) + jitter(2), middle[:, 1].view(-1, 1, 1) + jitter(2)
    radius = torch.tensor(RADIUS)[count].view(-1, 1, 1) * (1 + jitter(0.08))
    spacing = torch.tensor(SPACING)[count].view(-1, 1, 1)
    upright = ((place == 1) | (place == 2)).view(-1, 1, 1)
    distance = torch.full((n, SIZE, SIZE), 1e3)
    for k in range(3):
        offset = (k - count.view(-1, 1, 1) / 2) * spacing
        dx, dy = torch.where(upright, 0.0, offset), torch.where(upright, offset, 0.0)
        here = _shape_distance(shape, x - cx - dx, y - cy - dy, radius)
        distance = torch.where((count >= k).view(-1, 1, 1), torch.minimum(distance, here), distance)
    level, apex = 42 + jitter(4), 32 + jitter(12)
    hill = torch.hypot((x - apex) * 0.85, y - level - 16) < 24 + jitter(2)
    grounds = torch.stack([torch.zeros_like(hill), (y > level).expand_as(hill), hill]).float()
    ground = grounds[background, torch.arange(n)]
    return Canvas(
        x, y, distance, (0.5 - distance).clamp(0, 1),
        torch.tensor(list(COLOURS.values()))[colour].view(-1, 3, 1, 1), ground,
        cx, cy, torch.rand(n, 1, 1, generator=g) * 6.283, generator(seed, "texture"),
    )  # fmt: skip
