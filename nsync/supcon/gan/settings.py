"""Everything that the training of a GAN is asked to do, checked once."""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from ...optimizers import schedule_factor
from ...runs.judgements import (
    CADENCE,
    Judgement,
    above_zero,
    at_least,
    differing,
    judge,
    one_of,
    pace,
    share,
)
from ..contrast import CONTRASTS, SUPCON, Weights
from .adversarial import ADVERSARIAL, CROSS_ENTROPY, HINGE
from .attn_gan import AttnGan
from .augment import COLOR, CUTOUT, TRANSLATION
from .contract import Family
from .dm_gan import DmGan
from .galip import Galip
from .ssa_gan import SsaGan

AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "translation": (TRANSLATION,),
    "translation and cutout": (TRANSLATION, CUTOUT),
    "color, translation and cutout": (COLOR, TRANSLATION, CUTOUT),
}
"""Policies by what users call them; see `nsync.supcon.gan.augment`."""


@dataclass(frozen=True)
class GanSettings:
    """One run's settings; `check` is the only place that judges them.

    `defaults` gives those that each family was published with.

    Attributes:
        steps: updates of the generator, and of the discriminators.
        batch: pairs per branch.
        generator_rate: learning rate of the generator's Adam, after warm-up.
        discriminator_rate: of the discriminators', and of the classifier's.
        beta1, beta2: of both Adams.
        warmup: steps over which the learning rates rise linearly.
        ema: decay of the average of the generator, which is what is saved.
        augmentation: one of `AUGMENTATIONS`.
        adversarial: one of `adversarial.ADVERSARIAL`.
        penalty_weight: of the matching-aware gradient penalty; 0 leaves it out.
        r1_gamma: of the R1 penalty; 0 leaves it out.
        penalty_every: steps between two penalties, which then weigh so many times more.
        match_weight: of the text match.
        word_match_weight: of the same by words and regions (`words.word_matching`); 0 leaves it
            out.
        divergence_weight: of what generators draw from the text; see `contract.Painted`.
        class_mask: items with a label in common have no wrong texts for each other, neither for the
            discriminators nor in the text match; items with one caption never have. Where labels
            say little of what captions say, content is then hard to learn, see docs/decisions.md.
        contrast: one of `nsync.supcon.contrast.CONTRASTS`.
        image_image, image_text, text_image: weight of pulling painted pictures together with
            pictures and texts of their label; see `nsync.supcon.contrast.Weights`.
        temperature: of the contrast.
        contrast_real: in the contrasts "supcon" and "unicl" real pictures stand beside the painted
            ones, with the same texts.
        seed: every random draw is derived from it.
        log_every: steps between two readings of the numbers on the device.
        preview_every: steps between two previews; 0 paints none.
        save_every: steps between two states from which the run can be resumed; 0 saves one only
            when the run stops.
        keep_last: how many of these states are kept.
        pause_every: stop after every so many steps, to be run again; 0 never pauses.
        score_every: steps between two scores of a watch.
    """

    steps: int = 10000
    batch: int = 24
    generator_rate: float = 1e-4
    discriminator_rate: float = 4e-4
    beta1: float = 0.0
    beta2: float = 0.9
    warmup: int = 0
    ema: float = 0.999
    augmentation: str = "translation"
    adversarial: str = HINGE
    penalty_weight: float = 2.0
    r1_gamma: float = 0.0
    penalty_every: int = 1
    match_weight: float = 0.1
    word_match_weight: float = 0.0
    divergence_weight: float = 1.0
    class_mask: bool = False
    contrast: str = SUPCON
    image_image: float = 0.1
    image_text: float = 0.05
    text_image: float = 0.05
    temperature: float = 0.5
    contrast_real: bool = False
    seed: int = 0
    log_every: int = 10
    preview_every: int = 200
    save_every: int = 500
    keep_last: int = 2
    pause_every: int = 0
    score_every: int = 1000

    validate_every: ClassVar[int] = 1

    @property
    def policies(self) -> tuple[str, ...]:
        """What the augmentation is made of."""
        return AUGMENTATIONS[self.augmentation]

    @property
    def weights(self) -> Weights:
        """Those of the contrast. Texts among themselves say nothing to a generator."""
        return Weights(self.image_image, 0.0, self.image_text, self.text_image)

    def check(self) -> None:
        """Raise one `InputError` that names every setting out of its range."""
        judge(self.judgements())

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied with in update `step` (0-based)."""
        return schedule_factor("constant", step, self.steps, self.warmup)

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The settings as plain values, for JSON."""
        return asdict(self)

    def differs(self, other: "GanSettings") -> dict[str, tuple[object, object]]:
        """What of `other` would make it another run: (value here, value there) by name."""
        return differing(self, other, CADENCE | {"steps"})

    def judgements(self) -> list[Judgement]:
        """Every rule that a setting has to keep, and whether it does."""
        return [
            one_of(self, "augmentation", tuple(AUGMENTATIONS)),
            one_of(self, "adversarial", ADVERSARIAL),
            one_of(self, "contrast", CONTRASTS),
            # One pair has nothing to be told apart from.
            at_least(self, "batch", 2),
            at_least(self, "penalty_every", 1),
            *(at_least(self, name, 0) for name in _FROM_ZERO),
            *(above_zero(self, name) for name in _ABOVE_ZERO),
            *(share(self, name) for name in ("beta1", "beta2", "ema")),
            *pace(self),
        ]


_FROM_ZERO = (
    "warmup",
    "penalty_weight",
    "r1_gamma",
    "match_weight",
    "word_match_weight",
    "divergence_weight",
    "image_image",
    "image_text",
    "text_image",
)
_ABOVE_ZERO = ("generator_rate", "discriminator_rate", "temperature")

# What came after a family is no part of what was published: differentiable augmentation (2020), and
# of SSA-GAN and GALIP an average of the generator. A loss that is the sum of both ways there is
# their mean here, so that its weight is twice as large.

# `trainer.py` of both: 5, of sentences and of words, both ways added.
_STAGED = {
    "generator_rate": 2e-4,
    "discriminator_rate": 2e-4,
    "beta1": 0.5,
    "beta2": 0.999,
    "adversarial": CROSS_ENTROPY,
    "penalty_weight": 0.0,
    "match_weight": 10.0,
    "word_match_weight": 10.0,
    "augmentation": "none",
}
_ONE_STAGE = {"ema": 0.0, "augmentation": "none"}
_PUBLISHED: dict[type[Family], dict[str, float | str]] = {
    # github.com/wtliao/text2image (3063e27), for birds: 0.05 times DAMSM's loss (`main.py`), of
    # sentences and of words, both ways added (`miscc/losses.py`).
    SsaGan: {"batch": 24, "match_weight": 0.1, "word_match_weight": 0.1, **_ONE_STAGE},
    # github.com/tobran/GALIP (35d0c2f), for birds. Its weight of 4 is that of a cosine; a matching
    # loss at the temperature of 0.1 falls by up to 10 per cosine.
    Galip: {"batch": 16, "match_weight": 0.4, **_ONE_STAGE},
    # `code/cfg/bird_attn2.yml` of github.com/taoxugit/AttnGAN (0d000e6).
    AttnGan: {"batch": 20, **_STAGED},
    # `code/cfg/bird_DMGAN.yml` of github.com/MinfengZhu/DM-GAN (d515995).
    DmGan: {"batch": 10, **_STAGED},
}


def defaults(family: Family) -> GanSettings:
    """The settings that a family was published with, as far as it has those of here.

    The rates and betas of those of one stage are those of `GanSettings`.
    """
    return replace(GanSettings(), **_PUBLISHED[type(family)])
