"""Differentiable augmentation: a discriminator sees every picture changed, real or not.

With few pictures it would learn them by heart. Changing real ones alone would teach the generator
to paint the changes; so both are changed, and the generator's gradient goes through the change.

Source: Zhao et al. (arXiv 2006.10738), with the ranges of their `DiffAugment_pytorch.py`
(github.com/mit-han-lab/data-efficient-gans). Where ours is not theirs: what is drawn comes from a
given source and not from global state, and is drawn apart from being applied, so that several
batches can get the same change.

What the captions speak of should not be changed: "color" takes saturation down to grey, and with
"translation" and "cutout" what is told may leave the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError

COLOR, TRANSLATION, CUTOUT = POLICIES = ("color", "translation", "cutout")


@dataclass(frozen=True)
class Change:
    """What happens to each of n pictures of one size, in this order; None for what does not.

    Attributes:
        size: side of the pictures.
        color: float32 `[n, 3]`: added brightness in -0.5..0.5, factors of saturation in 0..2 and of
            contrast in 0.5..1.5.
        translation: int64 `[n, 2]`: rows and columns that the content moves up and left by, up to
            an eighth of the side; what comes in is 0, mid grey.
        cutout: int64 `[n, 2]`: the middle of a square of half the side that becomes 0; where it
            reaches over the edge, less is cut.
    """

    size: int
    color: Tensor | None = None
    translation: Tensor | None = None
    cutout: Tensor | None = None


def draw_change(
    count: int, size: int, source: torch.Generator, policies: Sequence[str] = POLICIES
) -> Change:
    """Draw a change for each of `count` pictures.

    Args:
        count: of the pictures.
        size: their side, 8 px or more.
        source: on the CPU, so that every device sees one change; see `nsync.draws`.
        policies: of `POLICIES`; a policy's draws do not depend on which others there are.

    Raises:
        InputError: an unknown policy; too small a size.
    """
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise InputError("policies", f"some of {', '.join(POLICIES)}", repr(unknown[0]))
    if size < 8:
        raise InputError("size", "8 px or more", repr(size))
    uniform = torch.rand(count, 7, generator=source, dtype=torch.float64)
    lowest, highest = torch.tensor([[-0.5, 0, 0.5], [0.5, 2, 1.5]], dtype=torch.float64)
    reach, hole = size // 8, size // 2
    drawn = {
        COLOR: (lowest + uniform[:, :3] * (highest - lowest)).float(),
        TRANSLATION: (uniform[:, 3:5] * (2 * reach + 1)).long() - reach,
        # An even square has its middle between pixels: one place more.
        CUTOUT: (uniform[:, 5:7] * (size + 1 - hole % 2)).long(),
    }
    return Change(size, **{name: drawn[name] for name in policies})


def augment(images: Tensor, change: Change) -> Tensor:
    """The pictures, changed; gradients flow back to them, of any order.

    Args:
        images: float `[n, 3, s, s]` in -1..1, of the number and size that `change` was drawn for.

    Returns:
        The same shape and dtype; colours may leave -1..1, as published.

    Raises:
        InputError: pictures of another number or size.
    """
    drawn = [part for part in (change.color, change.translation, change.cutout) if part is not None]
    for part in drawn:
        expected = (len(part), 3, change.size, change.size)
        if tuple(images.shape) != expected:
            raise InputError("images", f"float {list(expected)}", str(list(images.shape)))
    if change.color is not None:
        images = _color(images, change.color.to(images))
    if change.translation is not None:
        images = _translate(images, change.translation.to(images.device))
    if change.cutout is not None:
        images = _cut(images, change.cutout.to(images.device))
    return images


def _color(images: Tensor, amounts: Tensor) -> Tensor:
    brightness, saturation, contrast = amounts[:, :, None, None, None].unbind(1)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + saturation * (images - grey)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + contrast * (images - middle)


def _translate(images: Tensor, shifts: Tensor) -> Tensor:
    size = images.shape[2]
    padded = F.pad(images, (1, 1, 1, 1))
    places = torch.arange(size, device=images.device)[None] + 1
    rows, columns = (shifts[:, k, None] + places for k in (0, 1))
    # All that lies outside is found in the border of zeros.
    rows, columns = (each.clamp(0, size + 1) for each in (rows, columns))
    items = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[items, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _cut(images: Tensor, middles: Tensor) -> Tensor:
    size = images.shape[2]
    hole = size // 2
    places = torch.arange(size, device=images.device)[None, None]
    starts = middles[:, :, None] - hole // 2
    inside = (places >= starts) & (places < starts + hole)
    return images * ~(inside[:, 0, :, None] & inside[:, 1, None])[:, None]
