"""What the branches of a step are fed, and which of their texts are wrong for which picture."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import label_overlap
from .settings import GanSettings


class Side(NamedTuple):
    """What one branch of a step is fed, or all of them together: n pairs, row by row.

    Attributes:
        images: float `[n, 3, s, s]` in -1..1, real pictures of the family's `image_size`.
        seen: float `[n, d]`, what the frozen image encoder sees in them.
        text: float `[n, d]`, a feature per sentence, of the frozen text encoder.
        words: float `[n, l, d]`, a feature per word.
        mask: bool `[n, l]`, True where there is a word.
        texts: int `[n]`, equal numbers for equal texts.
        labels: int `[n]`, or 0 and 1 `[n, classes]`; see `nsync.supcon.losses`.
        noise: float `[n, z]`.
    """

    images: Tensor
    seen: Tensor
    text: Tensor
    words: Tensor
    mask: Tensor
    texts: Tensor
    labels: Tensor
    noise: Tensor


def joined(sides: Sequence[Side]) -> Side:
    """The pairs of all branches as those of one."""
    return Side(*map(torch.cat, zip(*sides, strict=True)))


def strangers(settings: GanSettings, side: Side) -> Tensor:
    """Bool `[n, n]`: the text of a column is wrong for the picture of a row.

    Items of one text are no strangers; nor are, with `settings.class_mask`, items that share a
    label, for they are pulled together elsewhere.
    """
    apart = side.texts[:, None] != side.texts[None]
    if settings.class_mask:
        apart = apart & (label_overlap(side.labels, side.labels) == 0)
    return apart


def spared(settings: GanSettings, side: Side) -> Tensor:
    """What tells which texts are no wrong answers in the text match."""
    return side.labels if settings.class_mask else side.texts
