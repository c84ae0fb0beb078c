"""Pictures of a text-to-image GAN while it is trained: some prompts, on one sheet."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ...nsync.files import write_atomic
from ...nsync.pictures.images import png, to_picture
from ...nsync.supcon.encoders import Encoders
from ...nsync.supcon.gan.sampler import generate
from ...nsync.supcon.pairs import LabelledPairs
from ..progress import TrainingProgress

MOST = 16
"""Pictures on a sheet, at most."""

_GAP = 2


class GanPreviews:
    """Draws the same prompts with the same seeds every time, with the generator's average.

    Args:
        prompts: a picture each.
        folder: takes the sheets.
    """

    def __init__(
        self,
        encoders: Encoders,
        prompts: Sequence[str],
        seed: int,
        folder: Path,
        progress: TrainingProgress,
    ) -> None:
        self._encoders, self._prompts, self._progress = encoders, list(prompts), progress
        self._seeds = range(seed, seed + len(prompts))
        self._folder = folder

    @property
    def latest(self) -> list[Path]:
        """The newest sheet, if there is one."""
        return sorted(self._folder.glob("step_*.png"))[-1:]

    def __call__(self, done: int, painter: nn.Module) -> None:
        """Draw, save and show the sheet after `done` steps."""
        picture = sheet(generate(painter, self._encoders, self._prompts, self._seeds))
        write_atomic(self._folder / f"step_{done:08}.png", png(picture))
        self._progress.show(picture)


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
    rare = max(1, count // MOST)
    queues = [iter(rows.nonzero().flatten().tolist()) for rows in member.T[::rare]]
    taken: dict[int, None] = {}
    for turn, queue in enumerate(cycle(queues)):
        if len(taken) == min(MOST, len(pairs)) or turn == MOST * len(queues):
            break
        row = next((row for row in queue if row not in taken), None)
        taken |= {} if row is None else {row: None}
    return pairs.texts(list(taken))
