"""One training of a text-to-image GAN as the host sees it: what is checked, where it is saved."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import comfyui_version
from torch import nn

from ...nsync.checkpoint import check_room
from ...nsync.errors import InputError
from ...nsync.files import numbered
from ...nsync.runs.folder import RunFolder
from ...nsync.runs.parts import TrainResult
from ...nsync.style_set import StyleSet
from ...nsync.supcon.clip_encoders import ClipEncoders
from ...nsync.supcon.encoders import Encoders, check_captions
from ...nsync.supcon.gan import FAMILIES
from ...nsync.supcon.gan.contract import Family
from ...nsync.supcon.gan.model_file import save_model
from ...nsync.supcon.gan.settings import GanSettings, defaults
from ...nsync.supcon.gan.training import (
    check_before_reading,
    check_fit,
    check_penalties,
    count_weights,
    train,
)
from ...nsync.supcon.learner import AVERAGE, ModulesLearned
from ...nsync.supcon.pairs import LabelledPairs, read_pairs
from ..folders import ANEW, export_title, run_folder
from ..host.devices import EVERYTHING, at_work
from ..progress import TrainingProgress, on_picture
from .gan_previews import GanPreviews, first_prompts
from .trained_files import GANS_FOLDER, trained_folder

MODEL = "model"
"""The kind of the saved file."""

AS_SET, PUBLISHED = "as set", "published"
_PUBLISHED = (
    "batch",
    "generator_rate",
    "discriminator_rate",
    "beta1",
    "beta2",
    "warmup",
    "ema",
    "augmentation",
    "adversarial",
    "divergence_weight",
    "penalty_weight",
    "r1_gamma",
    "penalty_every",
    "match_weight",
    "word_match_weight",
)
"""Settings that a family's paper or code has a value for."""

_INNER = (
    "mask_width",
    "code_width",
    "bridge_width",
    "seen_width",
    "joint_width",
    "discriminator_width",
)
"""Widths of a family that go with its `width`."""


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
        folder = run_folder(name)
        if if_run_exists == ANEW:
            folder = numbered(folder)
        vision = _vision(family, encoders)
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
        title = export_title(self.folder, steps, self.settings.steps)
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


def family_of(name: str, image_size: int, width: int, encoders: Encoders) -> Family:
    """A family at a size, for texts of these encoders.

    What else the published networks have widths for keeps its ratio to theirs.
    """
    kind, published = FAMILIES[name], FAMILIES[name]()
    share = width / published.width
    inner = {
        field.name: max(1, round(getattr(published, field.name) * share))
        for field in fields(kind)
        if field.name in _INNER
    }
    return kind(image_size=image_size, width=width, text_width=encoders.width, **inner)


def with_preset(settings: GanSettings, family: Family, preset: str) -> GanSettings:
    """The settings; of the family's own values, those that are published."""
    if preset == AS_SET:
        return settings
    own = defaults(family)
    return replace(settings, **{name: getattr(own, name) for name in _PUBLISHED})


def _vision(family: Family, encoders: Encoders) -> nn.Module | None:
    """The frozen tower that the family needs: that of CLIP encoders, which they share."""
    if not family.needs_vision:
        return None
    if not isinstance(encoders, ClipEncoders):
        raise InputError(
            "encoders",
            "CLIP encoders, for a family that looks and thinks with CLIP's vision tower",
            f"{encoders.kind} ones",
            "Choose a CLIP in SupCon Pretrainer, or another family.",
        )
    return encoders.clip.vision_model
