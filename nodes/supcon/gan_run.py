"""One training of a text-to-image GAN as the host sees it: what is checked, where it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfyui_version
from torch import nn

from ...nsync.checkpoint import check_room
from ...nsync.files import numbered
from ...nsync.names import export_title
from ...nsync.runs.folder import RunFolder
from ...nsync.runs.parts import TrainResult
from ...nsync.runs.recipe import to_train_in
from ...nsync.style_set import StyleSet
from ...nsync.supcon.encoders import Encoders, check_captions
from ...nsync.supcon.gan.choices import vision_of
from ...nsync.supcon.gan.contract import Family
from ...nsync.supcon.gan.model_file import save_model
from ...nsync.supcon.gan.settings import GanSettings
from ...nsync.supcon.gan.sheets import first_prompts
from ...nsync.supcon.gan.training import (
    check_before_reading,
    check_fit,
    check_penalties,
    count_weights,
    train,
)
from ...nsync.supcon.learner import AVERAGE, ModulesLearned
from ...nsync.supcon.pairs import LabelledPairs, read_pairs
from ..folders import run_folder
from ..host.devices import EVERYTHING, at_work
from ..progress import TrainingProgress, on_picture
from .gan_previews import GanPreviews
from .trained_files import GANS_FOLDER, trained_folder

MODEL = "model"
"""The kind of the saved file."""


@dataclass(frozen=True)
class GanRun:
    """A run: what it is made of, and its folder."""

    settings: GanSettings
    family: Family
    encoders: Encoders
    pairs: LabelledPairs
    vision: nn.Module | None
    folder: Path

    @classmethod
    def prepare(
        cls,
        settings: GanSettings,
        family: Family,
        encoders: Encoders,
        style_set: StyleSet,
        name: str,
        if_run_exists: str,
    ) -> "GanRun":
        """Judge all that can be judged, and read the set.

        Raises:
            InputError: a bad name or setting, encoders that do not fit the family or the captions,
                a set without labels or captions, another run in the folder, a full disk.
        """
        settings.check()
        family.check()
        check_penalties(settings, family)
        folder = to_train_in(run_folder(name), if_run_exists)
        vision = vision_of(family, encoders)
        check_captions(encoders, ((item.name, item.caption) for item in style_set.items))
        networks = check_before_reading(settings, family, encoders, folder, vision)
        saved = (networks.generator, encoders, *([vision] if vision else []))
        check_room(trained_folder(GANS_FOLDER), sum(map(count_weights, saved)), 1)
        pairs = read_pairs(style_set, family.image_size, on_picture())
        check_fit(family, encoders, pairs)
        return cls(settings, family, encoders, pairs, vision, folder)

    def previews(self, prompts: Sequence[str], progress: TrainingProgress) -> GanPreviews:
        """The run's previews: of these prompts, or of captions of the set if there are none.

        Raises:
            InputError: a prompt that the text encoder would not read to its end.
        """
        asked = list(prompts) or first_prompts(self.pairs)
        check_captions(self.encoders, ((repr(prompt), prompt) for prompt in asked))
        place = self.folder / "samples"
        return GanPreviews(self.encoders, asked, self.settings.seed, place, progress)

    def train(self, progress: TrainingProgress, previews: GanPreviews) -> TrainResult:
        """Train where the host computes; the model is saved at the end, or at a stop."""
        with at_work(EVERYTHING, self.encoders):
            return train(
                self.settings,
                self.family,
                self.encoders,
                self.pairs,
                self.folder,
                self._export,
                vision=self.vision,
                on_step=progress.on_step,
                on_item=on_picture(),
                preview=previews,
            )

    def _export(self, learned: ModulesLearned, steps: int) -> dict[str, Path]:
        title = export_title(self.folder.name, steps, self.settings.steps)
        path = numbered(trained_folder(GANS_FOLDER) / f"{title}.safetensors")
        config = RunFolder(self.folder).config() or {}
        versions = {**config["versions"], "comfyui": comfyui_version.__version__}
        save_model(
            path,
            learned[AVERAGE],
            self.family,
            self.encoders,
            title=title,
            training={**config, "versions": versions, "steps": steps},
            vision=self.vision,
        )
        return {MODEL: path}
