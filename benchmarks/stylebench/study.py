"""A study: which styles, seeds, adapters and arms, and everything they have in common."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from nsync import __version__
from nsync.denoiser import SamplerSettings
from nsync.draws import derive_seed
from nsync.negatives import NegativeSettings
from nsync.rules import needs_anchor, needs_negative
from nsync.settings import TrainSettings

from .families import FIRST_FAMILY, Family, family_of
from .trials.choice import Trial

TUNING, REPORTING = "tuning", "reporting"
KINDS = (TUNING, REPORTING)
TUNING_STYLES = ("neon", "basket")
"""Styles on which settings may be chosen; results are reported on the other ten."""

STEPS, PICTURES = "steps", "pictures"
EQUALS = (STEPS, PICTURES)
BASE = "base"
TOKEN = "sks"
"""The style token of all studies: a word that means nothing to the base."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        settings: without what a cell decides: steps, seed and adapter.
        negatives: how they are painted, for rules that need them; its seed is the cell's.
        equal: what an arm has as many of as those with negatives: "steps" at the study's batch, or
            "pictures" seen, by a larger batch or by more steps.
        longer: how many optimizer steps it makes for one of the study's; it is looked at after so
            many times `measure_at`.
        trial: what it does that the library does not.
    """

    name: str
    settings: TrainSettings
    negatives: NegativeSettings
    equal: str = STEPS
    longer: int = 1
    trial: Trial = field(default_factory=Trial)

    @property
    def branches(self) -> int:
        """Branches of a step: positives, and negatives and anchors where the rule needs them.

        A trial may have several of negatives, and one of the base's own pictures.
        """
        rule, several = self.settings.rule, self.trial.kind == "several"
        negatives = self.negatives.per_positive if several else int(needs_negative(rule))
        return 1 + negatives + needs_anchor(rule) + (self.trial.kind == "prior")

    @property
    def paints(self) -> bool:
        """Whether the base has to paint something for it."""
        return self.settings.uses_painted or self.trial.kind == "prior"

    @property
    def positives_per_step(self) -> int:
        """Positives that a step sees (anchors are not counted)."""
        return self.settings.batch * self.settings.accumulate

    @property
    def pictures_per_step(self) -> int:
        """Pictures of all branches that a step sees, which is its forward-backward passes."""
        return self.positives_per_step * self.branches

    @property
    def pictures_per_study_step(self) -> int:
        """Pictures that it has seen more at each step of the study."""
        return self.pictures_per_step * self.longer


@dataclass(frozen=True)
class Cell:
    """What is trained once."""

    style: str
    adapter: str
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.style}, {self.adapter}, {self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A study as its file has it; `study_file.read_study` is the only place that judges it.

    Attributes:
        kind: "tuning" or "reporting"; see `TUNING_STYLES`.
        positives: training pictures of a style.
        pictures: held-out captions, each drawn once with the style token.
        plain_pictures: other captions, drawn without it.
        measure_at: steps after which is measured, ascending; training ends with the last.
        sampler: how the measured pictures are drawn.
        base_seed: of the base that is taught; 0 is the shipped one. See `world.base_folder`.
    """

    name: str
    kind: str
    styles: tuple[str, ...]
    seeds: tuple[int, ...]
    adapters: tuple[str, ...]
    positives: int
    pictures: int
    plain_pictures: int
    measure_at: tuple[int, ...]
    sampler: SamplerSettings
    arms: tuple[Arm, ...]
    base_seed: int = 0

    @property
    def family(self) -> Family:
        """That all its styles are of."""
        return family_of(self.styles[0])

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def cells(self) -> Iterator[Cell]:
        """All cells; whoever stops among them has all styles of the arms that came first.

        All styles of an arm and seed come together, and all arms of a seed, the base first.
        """
        for seed in self.seeds:
            for adapter in self.adapters:
                for arm in (BASE, *(arm.name for arm in self.arms)):
                    for style in self.styles:
                        yield Cell(style, adapter, arm, seed)

    def steps_of(self, cell: Cell) -> tuple[int, ...]:
        """The steps of which a cell has a record."""
        return (0,) if cell.arm == BASE else self.measure_at

    def looks(self, arm: Arm) -> tuple[int, ...]:
        """The optimizer steps of an arm after which is measured, one for each of `measure_at`."""
        return tuple(step * arm.longer for step in self.measure_at)

    def settings(self, cell: Cell) -> TrainSettings:
        """What a cell trains with: the arm's, and what the cell decides."""
        arm = self.arm(cell.arm)
        looks = self.looks(arm)
        return replace(
            arm.settings,
            trains=cell.adapter,
            seed=derive_seed(cell.seed, "training"),
            steps=looks[-1],
            preview_every=math.gcd(*looks),
            save_every=0,
        )

    def negatives(self, arm: Arm, seed: int) -> NegativeSettings:
        """How an arm's negatives are painted in cells of this seed."""
        return replace(arm.negatives, seed=derive_seed(seed, "negatives"))

    def facts(self) -> dict[str, object]:
        """Everything that changes results, as JSON values; see `store.check_same_study`."""
        common = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("arms", "styles", "seeds", "adapters", "base_seed")
        }
        arms = {arm.name: _arm_facts(arm) for arm in self.arms}
        facts = {**common, "token": TOKEN, "nsync": __version__, "arms": arms}
        if self.family != FIRST_FAMILY:  # facts of studies from before there was another
            facts["ruler"] = hashlib.sha256(self.family.ruler.read_bytes()).hexdigest()
        if self.base_seed:
            facts["base_seed"] = self.base_seed
        return facts


def _arm_facts(arm: Arm) -> dict[str, object]:
    facts: dict[str, object] = {
        "settings": arm.settings.as_dict(),
        "negatives": asdict(arm.negatives) if arm.paints else None,
    }
    # Arms without a trial and of the study's steps are as they were before there were others.
    if kind := arm.trial.kind:
        facts["trial"] = {kind: getattr(arm.trial, kind)}
    if arm.longer > 1:
        facts["longer"] = arm.longer
    return facts
