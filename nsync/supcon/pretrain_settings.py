"""Everything that the pretraining of encoders is asked to do, checked once."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from ..optimizers import schedule_factor
from ..runs.judgements import (
    CADENCE,
    Judgement,
    above_zero,
    at_least,
    differing,
    judge,
    one_of,
    pace,
)
from .contrast import CONTRASTS, NONE, SUPCON, Weights


@dataclass(frozen=True)
class PretrainSettings:
    """One pretraining's settings; `check` is the only place that judges them.

    Attributes:
        contrast: one of `nsync.supcon.contrast.CONTRASTS`.
        matching: weight of the loss that tells which text is of which picture, in each branch.
        words: weight of the same by words and regions (`words.word_matching`), in each branch; 0
            leaves it out. DAMSM, which AttnGAN and DM-GAN were published with, has 1.
        image_image, text_text, image_text, text_image: weight of pulling together, across or
            within pictures and texts, what shares a label; see `nsync.supcon.contrast.Weights`.
        class_mask: leave others with a label in common out of matching's negatives, as DAMSM does.
            Where captions tell the labels, features then say little but the label, see
            docs/decisions.md. Without, only others with the same caption are left out.
        temperature: of matching, by texts and by words.
        contrast_temperature: of the contrast.
        steps: number of updates.
        batch: pairs per branch; there are two branches.
        learning_rate: of AdamW, after the warm-up.
        warmup: steps over which the learning rate rises linearly.
        seed: every random draw is derived from it.
        validation: pairs held out of training; loss and R-precision on them are logged.
        log_every: steps between two readings of the numbers on the device.
        validate_every: steps between two measurements of the held-out pairs.
        save_every: steps between two states from which the run can be resumed; 0 saves one only
            when the run stops.
        keep_last: how many of these states are kept.
        pause_every: stop after every so many steps, to be run again; 0 never pauses.
    """

    contrast: str = SUPCON
    matching: float = 1.0
    words: float = 0.0
    image_image: float = 0.06
    text_text: float = 0.06
    image_text: float = 0.06
    text_image: float = 0.06
    class_mask: bool = False
    temperature: float = 0.1
    contrast_temperature: float = 0.5
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 50
    seed: int = 0
    validation: int = 0
    log_every: int = 10
    validate_every: int = 100
    save_every: int = 200
    keep_last: int = 2
    pause_every: int = 0

    preview_every: ClassVar[int] = 0
    score_every: ClassVar[int] = 1

    def check(self) -> None:
        """Raise one `InputError` that names every setting out of its range."""
        judge(self.judgements())

    def judgements(self) -> list[Judgement]:
        """Every rule that a setting has to keep, and whether it does."""
        numbers = ("learning_rate", "temperature", "contrast_temperature")
        weights = ("matching", "words", *Weights._fields, "warmup", "validation")
        return [
            one_of(self, "contrast", CONTRASTS),
            *pace(self),
            at_least(self, "batch", 2),
            *(above_zero(self, name) for name in numbers),
            *(at_least(self, name, 0) for name in weights),
            self._something(),
        ]

    def differs(self, other: "PretrainSettings") -> dict[str, tuple[object, object]]:
        """What of `other` would make it another run: (value here, value there) by name."""
        return differing(self, other, CADENCE | {"steps"})

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The settings as plain values, for JSON."""
        return asdict(self)

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied with in update `step` (0-based)."""
        return schedule_factor("constant", step, self.steps, self.warmup)

    @property
    def weights(self) -> Weights:
        """Those of the contrastive terms."""
        return Weights(*(getattr(self, name) for name in Weights._fields))

    @property
    def uses_labels(self) -> bool:
        """Whether labels have a part in the run at all."""
        return self.contrast != NONE or self.class_mask

    def _something(self) -> Judgement:
        total = self.matching + self.words + (sum(self.weights) if self.contrast != NONE else 0)
        return "matching", "above 0, where no other loss has a weight", self.matching, total > 0
