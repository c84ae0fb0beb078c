"""Everything that a process needs to run cells of a study."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch

from nsync.files import write_atomic
from nsync.pictures.images import to_uint8
from nsync.style_set import StyleSet
from nsync.training import train

from ..studies.pictures import strip
from . import store
from .cell import Looked, Record, base_record, records, train_cell
from .draw import Drawn, base_drawn, draw
from .measure import Instruments, Truth
from .study import BASE, Arm, Cell, Study
from .trials.choice import OTHER_CAPTIONS, SAME_STYLE
from .trials.loop import train_trial
from .world import (
    NO_STYLE,
    Scenes,
    draw_apart,
    of_other_captions,
    of_same_style,
    positives,
    references,
    tiny_denoiser,
    with_negatives,
    with_others,
)


class Workshop:
    """The base, the instruments, and what the cells of a style and seed share.

    Args:
        folder: of the study; see `store`.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self._shared = store.shared_folder(folder)
        self._denoiser = tiny_denoiser(study.base_seed)
        self._instruments = Instruments(study.family)
        self._truth = lru_cache(len(study.styles))(self._look_at_truth)

    def __call__(self, task: int | Cell) -> list[Record] | None:
        """Prepare a seed, or run a cell."""
        return self.run(task) if isinstance(task, Cell) else self.prepare(task)

    def prepare(self, seed: int) -> None:
        """Draw what the cells of a seed share, so that no two processes come to draw it at once."""
        self._base(seed)
        for style in self.study.styles:
            for arm in self.study.arms:
                self.style_set(style, seed, arm)
                self._loop(style, seed, arm)

    def run(self, cell: Cell) -> list[Record]:
        """The records of a cell; its last pictures and its log go into the study's folder."""
        truth = self._truth(cell.style, cell.seed)
        if cell.arm == BASE:
            drawn = self._base(cell.seed)
            self._keep(cell, drawn)
            return [base_record(self.study, cell, self._instruments.measure(drawn, truth))]
        found: dict[int, Looked] = {}

        def look(done: int, seconds: float) -> None:
            drawn = draw(self._denoiser, truth.scenes, self.study.sampler, cell.seed)
            found[done] = Looked(seconds, self._instruments.measure(drawn, truth))
            self._keep(cell, drawn)

        arm, settings = self.study.arm(cell.arm), self.study.settings(cell)
        style_set = self.style_set(cell.style, cell.seed, arm)
        loop = self._loop(cell.style, cell.seed, arm)
        log = train_cell(settings, self._denoiser, style_set, self.study.looks(arm), look, loop)
        store.keep_log(self.folder, cell, log)
        return records(self.study, cell, found, log)

    def style_set(self, style: str, seed: int, arm: Arm) -> StyleSet:
        """What an arm is trained on, with negatives if its rule needs them."""
        scenes = self._scenes(seed)
        plain = positives(scenes, style, seed)
        if arm.settings.uses_others:
            plain = with_others(plain, scenes, style, seed)
        if not arm.settings.uses_painted:
            return plain
        if arm.trial.negatives == SAME_STYLE:
            return of_same_style(plain, scenes, style, seed, self._denoiser, self._shared)
        settings = self.study.negatives(arm, seed)
        made = with_negatives(plain, scenes, style, settings, self._denoiser, self._shared)
        return of_other_captions(made) if arm.trial.negatives == OTHER_CAPTIONS else made

    def _loop(self, style: str, seed: int, arm: Arm) -> Callable[..., object]:
        """The library's own, or the trial's with what it is given beside the set."""
        if not arm.trial.kind:
            return train
        if arm.trial.kind != "prior":
            return partial(train_trial, trial=arm.trial)
        scenes = self._scenes(seed)
        plain, own = positives(scenes, style, seed), self.study.negatives(arm, seed)
        settings = replace(own, **NO_STYLE)
        prior = with_negatives(plain, scenes, style, settings, self._denoiser, self._shared)
        return partial(train_trial, trial=arm.trial, prior=prior)

    def _keep(self, cell: Cell, drawn: Drawn) -> None:
        write_atomic(store.strip_file(self.folder, cell), strip(drawn.styled))

    def _scenes(self, seed: int) -> Scenes:
        study = self.study
        return draw_apart(study.positives, study.pictures, study.plain_pictures, seed)

    def _base(self, seed: int) -> Drawn:
        scenes, sampler = self._scenes(seed), self.study.sampler
        return base_drawn(self._denoiser, scenes, sampler, seed, self._shared)

    def _look_at_truth(self, style: str, seed: int) -> Truth:
        scenes = self._scenes(seed)
        true = references(scenes, style, seed)
        write_atomic(store.reference_file(self.folder, style, seed), strip(true))
        items = positives(scenes, style, seed).items
        trained = to_uint8(torch.stack([item.pixels for item in items]))
        return self._instruments.truth(style, scenes, true, trained, self._base(seed))
