"""Pictures of a GAN that show how its training goes: which prompts, and all on one sheet."""

import math
from itertools import cycle

import torch
from PIL import Image
from torch import Tensor

from ...pictures.images import to_picture
from ..pairs import LabelledPairs

MOST = 16
"""Pictures on a sheet, at most."""

_GAP = 2


def sheet(pixels: Tensor) -> Image.Image:
    """Pictures `[n, 3, s, s]` in 0..1 in rows, as near to a square as they go."""
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    side = pixels.shape[-1] + _GAP
    canvas = torch.ones(3, rows * side - _GAP, columns * side - _GAP)
    for place, one in enumerate(pixels):
        top, left = side * (place // columns), side * (place % columns)
        canvas[:, top : top + one.shape[1], left : left + one.shape[2]] = one
    return to_picture(canvas)


def first_prompts(pairs: LabelledPairs) -> list[str]:
    """Captions of the set, of each label in turn; of labels all over the list if there are many."""
    numbers, count = pairs.labels.tensor, len(pairs.labels.names)
    member = numbers > 0 if numbers.ndim == 2 else numbers[:, None] == torch.arange(count)
    shown = [place * count // MOST for place in range(MOST)] if count > MOST else range(count)
    queues = [iter(member[:, label].nonzero().flatten().tolist()) for label in shown]
    taken: dict[int, None] = {}
    for turn, queue in enumerate(cycle(queues)):
        if len(taken) == min(MOST, len(pairs)) or turn == MOST * len(queues):
            break
        row = next((row for row in queue if row not in taken), None)
        taken |= {} if row is None else {row: None}
    return pairs.texts(list(taken))
