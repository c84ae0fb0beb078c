"""Bucket sizes: one area for every picture, its own aspect ratio, nothing squashed."""

import itertools
import math

import torch.nn.functional as F
from torch import Tensor

MAX_ASPECT = 4.0
"""Longer pictures are cropped to this ratio of sides; a model has seen nothing more extreme."""

_AREA_WEIGHT = 0.25
"""What a unit of log area counts against a unit of log aspect: keeping the aspect matters more."""


def bucket_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """The (width, height) in pixels that a picture of this size is trained at.

    Both sides are multiples of `multiple`, the area is about `resolution` squared, and the aspect
    ratio is the picture's own, as near as the multiples allow (and at most 4 to 1).

    Args:
        width, height: size of the picture in pixels, at least 1.
        resolution: side in pixels of the square with the wanted area.
        multiple: what the model's sizes must be multiples of, in pixels.
    """
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    wide, high = resolution * math.sqrt(aspect), resolution / math.sqrt(aspect)

    def badness(size: tuple[int, int]) -> tuple[float, int]:
        w, h = math.log(size[0] / wide), math.log(size[1] / high)
        # Rounded, so that float noise cannot treat a picture and the same one turned differently.
        return round(abs(w - h) + _AREA_WEIGHT * abs(w + h), 9), -size[0] * size[1]

    return min(itertools.product(_around(wide, multiple), _around(high, multiple)), key=badness)


def fit(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale a picture to cover `size` (antialiased, aspect kept) and crop its centre.

    Args:
        pixels: float32 `[3, h, w]` in 0..1.
        size: (width, height) in pixels.

    Returns:
        float32 `[3, height, width]` in 0..1; the picture itself where it has that size already.
    """
    width, height = size
    h, w = pixels.shape[-2:]
    if (w, h) == (width, height):
        return pixels
    scale = max(width / w, height / h)
    pixels = _without_far_ends(pixels, math.ceil(width / scale), math.ceil(height / scale))
    h, w = pixels.shape[-2:]
    covered = max(height, round(h * scale)), max(width, round(w * scale))
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    scaled = F.interpolate(pixels[None], covered, mode="bicubic", antialias=True)[0]
    return scaled[:, top : top + height, left : left + width].clamp(0, 1).contiguous()


def _without_far_ends(pixels: Tensor, width: int, height: int) -> Tensor:
    """Crop evenly what a later centre crop to `width` x `height` drops far outside its border.

    Scaling up a strip of 20,000 x 10 pixels whole would take gigabytes.
    """
    h, w = pixels.shape[-2:]
    top, left = max(0, h - 2 * height) // 2, max(0, w - 2 * width) // 2
    return pixels[:, top : h - top, left : w - left]


def _around(side: float, multiple: int) -> set[int]:
    """The multiples just below and just above a side (never zero)."""
    steps = side / multiple
    return {max(1, count) * multiple for count in (math.floor(steps), math.ceil(steps))}
