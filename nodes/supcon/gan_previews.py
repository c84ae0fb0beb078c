"""Pictures of a text-to-image GAN while it is trained: some prompts, on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ...nsync.files import write_atomic
from ...nsync.pictures.images import png
from ...nsync.supcon.encoders import Encoders
from ...nsync.supcon.gan.sampler import generate
from ...nsync.supcon.gan.sheets import sheet
from ..progress import TrainingProgress


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
