"""Twelve styles that the base has never seen, each with a palette, a stroke and a texture."""

import torch
from torch import Tensor

from .scenes import SIZE, Canvas
from .styles import Style, backdrop, blur, dots, line, mix, rgb, stripes


def _cells(c: Canvas, period: float) -> tuple[Tensor, Tensor]:
    """Irregular cells: (opacity of their borders, a tone of -1..1 per cell), `[n, 64, 64]`."""
    side = int(SIZE / period) + 1
    jitter = torch.rand(2, len(c.phase), side * side, generator=c.noise)
    grid = torch.arange(side) * period
    gx, gy = grid.repeat(side), grid.repeat_interleave(side)
    px, py = gx + jitter[0] * period, gy + jitter[1] * period
    far = (c.x[None, None] - px[..., None, None]) ** 2 + (
        c.y[None, None] - py[..., None, None]
    ) ** 2
    near, which = far.sqrt().topk(2, dim=1, largest=False)
    tone = torch.rand(len(c.phase), side * side, generator=c.noise) * 2 - 1
    tones = tone.gather(1, which[:, 0].flatten(1)).view_as(c.distance)
    return (1.6 - (near[:, 1] - near[:, 0])).clamp(0, 1), tones


def blueprint(c: Canvas) -> Tensor:
    """White contours and a fine grid on deep blue; fills barely tinted."""
    image = backdrop(c, rgb((0.07, 0.16, 0.42)), rgb((0.12, 0.24, 0.54)))
    grid = torch.maximum(stripes(c.x + c.phase, 8.0, 0.06), stripes(c.y + c.phase, 8.0, 0.06))
    image = mix(image, rgb((0.45, 0.58, 0.85)), 0.6 * grid)
    image = mix(image, c.colour * 0.75 + 0.1, 0.75 * c.inside)
    return mix(image, rgb((0.95, 0.97, 1.0)), line(c.distance, 1.8))


def neon(c: Canvas) -> Tensor:
    """A glowing tube of colour on near black, behind scan lines."""
    image = backdrop(c, rgb((0.04, 0.03, 0.08)), rgb((0.13, 0.06, 0.20)))
    bright = (c.colour * 1.15 + 0.12).clamp(0, 1)
    image = image + bright * (0.75 * torch.exp(-c.distance.abs() / 4.0)).unsqueeze(1)
    image = mix(image, bright * 0.5 + 0.5, line(c.distance, 1.4))
    return image * (1 - 0.35 * stripes(c.y, 4.0, 0.4))


def woodcut(c: Canvas) -> Tensor:
    """Wavy carved lines in cream, a heavy black contour, darkened fills."""
    cut = stripes(c.y + 2.2 * torch.sin(c.x * 0.22 + c.phase), 5.0, 0.35)
    image = backdrop(c, rgb((0.93, 0.85, 0.66)), rgb((0.80, 0.66, 0.44)))
    image = mix(image, rgb((0.42, 0.28, 0.16)), 0.55 * cut * (1 - c.inside))
    image = mix(image, c.colour * 0.72, c.inside)
    image = mix(image, rgb((0.95, 0.88, 0.70)), 0.7 * cut * c.inside)
    return mix(image, rgb((0.10, 0.06, 0.04)), line(c.distance, 3.4))


def stained_glass(c: Canvas) -> Tensor:
    """Panes of uneven light between leads."""
    leads, tone = _cells(c, 13.0)
    image = mix(backdrop(c, rgb((0.66, 0.82, 0.86)), rgb((0.50, 0.70, 0.62))), c.colour, c.inside)
    image = image * (1 + 0.22 * tone).unsqueeze(1) + 0.06
    return mix(image, rgb((0.06, 0.06, 0.08)), torch.maximum(leads, line(c.distance, 2.4)))


def embroidery(c: Canvas) -> Tensor:
    """Slanted stitches of light and dark thread on linen, a dashed pale seam."""
    weave = 0.5 * (stripes(c.x, 4.0, 0.3) + stripes(c.y, 4.0, 0.3))
    image = backdrop(c, rgb((0.86, 0.79, 0.66)), rgb((0.74, 0.70, 0.62))) * (1 - 0.16 * weave)
    stitch = stripes(c.x * 0.45 + c.y * 0.9 + c.phase, 4.0, 0.5)
    image = mix(image, mix(c.colour * 0.55, c.colour * 0.75 + 0.25, stitch), c.inside)
    dashed = line(c.distance - 2.2, 1.6) * stripes(c.x - c.y + c.phase, 7.0, 0.55)
    return mix(image, rgb((0.98, 0.95, 0.90)), dashed)


def comic(c: Canvas) -> Tensor:
    """A pink dotted ground, saturated fills, a black contour with its print slipped aside."""
    image = backdrop(c, rgb((0.98, 0.74, 0.80)), rgb((0.99, 0.58, 0.70)))
    image = mix(image, rgb((1.0, 0.97, 0.94)), dots(c.x + c.phase, c.y, 7.0, 1.7))
    slipped = c.inside.roll((2, 2), (1, 2))
    image = mix(image, (c.colour * 1.2 - 0.08).clamp(0, 1), slipped)
    return mix(image, rgb((0.03, 0.03, 0.05)), line(c.distance, 2.8))


def chalkboard(c: Canvas) -> Tensor:
    """Broken chalk strokes and a dusty contour on dark green."""
    image = backdrop(c, rgb((0.12, 0.26, 0.20)), rgb((0.18, 0.35, 0.28)))
    dust = (0.62 + 0.5 * c.gaussian(2)).clamp(0, 1)
    strokes = stripes((c.x - c.y) * 0.707 + c.phase, 4.5, 0.6) * dust * c.inside
    image = mix(image, c.colour * 0.7 + 0.3, 0.9 * strokes)
    return mix(image, rgb((0.92, 0.93, 0.88)), line(c.distance, 2.0) * (0.35 + 0.65 * dust))


def ripple(c: Canvas) -> Tensor:
    """Rings that spread from the middle over a pastel ground, a double contour."""
    radius = torch.hypot(c.x - c.centre_x, c.y - c.centre_y)
    rings = stripes(radius + c.phase, 7.0, 0.45)
    image = backdrop(c, rgb((0.90, 0.86, 0.97)), rgb((0.80, 0.90, 0.93)))
    image = mix(image, rgb((0.63, 0.58, 0.82)), 0.65 * rings)
    image = mix(image, c.colour * 0.62 + 0.36, c.inside * (1 - 0.45 * rings))
    contour = torch.maximum(line(c.distance, 1.5), line(c.distance - 3.5, 1.3))
    return mix(image, rgb((0.25, 0.20, 0.45)), contour)


def sunset(c: Canvas) -> Tensor:
    """An orange sky that deepens downwards, ruled lines, a pale halo, warmed fills."""
    depth = c.y / SIZE
    sky = rgb((1.0, 0.80, 0.42)) * (1 - depth) + rgb((0.82, 0.28, 0.22)) * depth
    image = mix(sky.expand(len(c.ground), 3, SIZE, SIZE), rgb((0.40, 0.14, 0.22)), 0.55 * c.ground)
    image = mix(image, rgb((1.0, 0.93, 0.72)), 0.4 * stripes(c.y + c.phase, 6.0, 0.25))
    halo = ((6 - c.distance) / 6).clamp(0, 1) * (1 - c.inside)
    image = mix(image, rgb((1.0, 0.97, 0.85)), 0.9 * halo)
    return mix(image, c.colour * 0.78 + rgb((0.12, 0.04, 0.0)), c.inside)


def terrazzo(c: Canvas) -> Tensor:
    """Chips of stone scattered in grey plaster, chalky fills, a thick white rim."""
    _, tone = _cells(c, 8.0)
    chips = (tone > 0.45).float()
    warm = (tone > 0.72).float()
    image = backdrop(c, rgb((0.76, 0.76, 0.78)), rgb((0.64, 0.66, 0.70)))
    stone = mix(rgb((0.36, 0.40, 0.44)).expand_as(image), rgb((0.82, 0.50, 0.38)), warm)
    image = mix(image, stone, chips * (1 - c.inside))
    image = mix(image, mix(c.colour * 0.8 + 0.15, c.colour * 0.5, chips), c.inside)
    return mix(image, rgb((1.0, 1.0, 1.0)), line(c.distance - 1.2, 3.4))


def basket(c: Canvas) -> Tensor:
    """Everything woven of brown strips, over and under; soft edges, no line."""
    over = (torch.remainder(torch.floor(c.x / 6) + torch.floor(c.y / 6), 2)).unsqueeze(0)
    across = torch.where(over > 0, torch.remainder(c.x, 6), torch.remainder(c.y, 6))
    relief = (1 - 0.5 * ((across - 3).abs() / 3) ** 2).expand_as(c.distance)
    image = backdrop(c, rgb((0.72, 0.54, 0.34)), rgb((0.58, 0.42, 0.26)))
    image = mix(image, c.colour * 0.82 + 0.04, blur(c.inside.unsqueeze(1), 1)[:, 0])
    return image * (relief * (1 + 0.06 * c.gaussian(2))).unsqueeze(1) * 1.12


def crystal(c: Canvas) -> Tensor:
    """Cold facets of uneven brightness, thin white edges, icy fills."""
    edges, tone = _cells(c, 10.0)
    image = backdrop(c, rgb((0.70, 0.86, 0.95)), rgb((0.52, 0.72, 0.88)))
    image = mix(image, c.colour * 0.75 + rgb((0.02, 0.10, 0.18)), c.inside)
    image = image * (1 + 0.28 * tone).unsqueeze(1)
    return mix(image, rgb((1.0, 1.0, 1.0)), torch.maximum(0.7 * edges, line(c.distance, 1.3)))


HELD_OUT: dict[str, Style] = {
    f.__name__: f
    for f in (
        blueprint, neon, woodcut, stained_glass, embroidery, comic,
        chalkboard, ripple, sunset, terrazzo, basket, crystal,
    )
}  # fmt: skip
