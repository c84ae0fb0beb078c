"""A study: which families, arms, worlds and seeds, and everything they have in common."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import NamedTuple

from nsync import __version__
from nsync.draws import derive_seed
from nsync.supcon.gan.contract import Family
from nsync.supcon.gan.settings import GanSettings
from nsync.supcon.pretrain_settings import PretrainSettings

from .arms import BASELINE, NOTHING, Arm, arm_of, gan_weights, kind_of, pretraining_weights

SMALL, CLIP = ENCODERS = ("small", "clip")
REAL = "real"
"""The family and arm of what is measured of real pictures: the ends of all scales."""

ONE, SEVERAL = OBJECTS = ("one", "several")

WHOLE, HALF = CAPTIONS = ("whole", "half")
"""What captions that are trained on say of style, shape, colour and place: all, or two of them."""


class World(NamedTuple):
    """What the pictures of a cell are: what their labels name, and how many objects they show."""

    labels: str
    objects: str

    def draws(self, seed: int) -> int:
        """What all is drawn by that has this seed: two worlds share no pictures and no noise."""
        return derive_seed(seed, *self)


@dataclass(frozen=True)
class Plan:
    """How a family is trained: its networks, and settings without what a cell decides."""

    family: Family
    settings: GanSettings

    @property
    def encoders(self) -> str:
        """The kind that the family is trained against."""
        return CLIP if self.family.needs_vision else SMALL


@dataclass(frozen=True)
class ClipSizes:
    """Of the small CLIP that GALIP looks and thinks with, trained from nothing like all else.

    Attributes:
        width: of its layers.
        layers: of each tower.
        heads: of each layer.
        grid: patches each way.
    """

    width: int = 64
    layers: int = 3
    heads: int = 2
    grid: int = 4


class Cell(NamedTuple):
    """What is trained once."""

    family: str
    arm: str
    labels: str
    objects: str
    seed: int

    def __str__(self) -> str:
        return f"{self.family}, {self.arm} ({self.labels}, {self.objects}, seed {self.seed})"

    @property
    def world(self) -> World:
        """Where it is trained."""
        return World(self.labels, self.objects)

    @property
    def draws(self) -> int:
        """The seed that everything of it is drawn by."""
        return self.world.draws(self.seed)


class Pretraining(NamedTuple):
    """Encoders that cells share: which kind, and what they use labels for."""

    encoders: str
    use: str
    labels: str
    objects: str
    seed: int

    @property
    def world(self) -> World:
        """Where they are pretrained."""
        return World(self.labels, self.objects)


class Judge(NamedTuple):
    """Encoders that no arm is trained against, by which R-precision is measured."""

    objects: str


@dataclass(frozen=True)
class Study:
    """A study as its file has it; `study_file.read_study` is the only place that judges it.

    Attributes:
        families: by name, in the order in which they are run.
        contrasts: some of `arms.CONTRASTS`.
        phases: some of `arms.PHASES`.
        image_size: side of the pictures that GANs paint.
        styles: that the pictures are drawn in.
        pictures: that are trained on.
        captions: one of `CAPTIONS`.
        held_out: scenes that are not trained on, in any style.
        per_caption: pictures painted of each held-out scene in each style.
        encoder_width: numbers per feature.
        clip: sizes of GALIP's CLIP.
        pretraining: settings without what a cell decides; the four weights' sum is that of an arm.
        clip_pretraining: likewise, of GALIP's CLIP.
    """

    name: str
    families: dict[str, Plan]
    contrasts: tuple[str, ...]
    phases: tuple[str, ...]
    labels: tuple[str, ...]
    objects: tuple[str, ...]
    seeds: tuple[int, ...]
    image_size: int
    styles: tuple[str, ...]
    pictures: int
    captions: str
    held_out: int
    per_caption: int
    encoder_width: int
    clip: ClipSizes
    pretraining: PretrainSettings
    clip_pretraining: PretrainSettings

    @property
    def arms(self) -> dict[str, Arm]:
        """By name, the one without contrast first."""
        used = [arm_of(use, phase) for phase in self.phases for use in self.contrasts]
        return {arm.name: arm for arm in (BASELINE, *used)}

    def blocks(self) -> Iterator[list[Cell]]:
        """All cells, of one world, seed and arm at a time, in the order in which they are run.

        Worlds of one object come before those of several. In them the first contrast in the first
        phase comes first, with the baseline and real pictures, for all labels and seeds; then the
        other contrasts; then the other phases. Whoever stops has whole comparisons of the first.
        """
        arms = [arm for arm in self.arms if arm != BASELINE.name]
        for objects, (place, arm) in product(self.objects, enumerate(arms)):
            for seed, labels in product(self.seeds, self.labels):
                first = [] if place else [Cell(REAL, REAL, labels, objects, seed)]
                wanted = [arm] if place else [BASELINE.name, arm]
                told = product(self.families, wanted)
                yield [*first, *(Cell(*each, labels, objects, seed) for each in told)]

    def cells(self) -> Iterator[Cell]:
        """All cells in this order."""
        for block in self.blocks():
            yield from block

    def pretraining_of(self, cell: Cell) -> Pretraining:
        """The encoders that a cell is trained against; cells with the same share them."""
        arm = self.arms[cell.arm]
        kind = self.families[cell.family].encoders
        return Pretraining(kind, arm.pretraining, *cell.world, cell.seed)

    def pretraining_settings(self, one: Pretraining) -> PretrainSettings:
        """What encoders are trained with."""
        given = self.clip_pretraining if one.encoders == CLIP else self.pretraining
        weights = pretraining_weights(one.use, sum(given.weights))
        return replace(
            given,
            **weights._asdict(),
            contrast=kind_of(one.use),
            seed=derive_seed(one.world.draws(one.seed), "pretraining"),
            validation=0,
            save_every=0,
        )

    def judge_settings(self) -> PretrainSettings:
        """What the judge is trained with: matching alone, on all that captions say."""
        return replace(
            self.pretraining,
            contrast=NOTHING,
            class_mask=False,
            steps=2 * self.pretraining.steps,
            seed=derive_seed(0, "judge"),
            validation=0,
            save_every=0,
        )

    def gan_settings(self, cell: Cell) -> GanSettings:
        """What a cell's GAN is trained with."""
        use, given = self.arms[cell.arm].gan, self.families[cell.family].settings
        weights = gan_weights(use, sum(given.weights))._asdict()
        del weights["text_text"]
        return replace(
            given,
            **weights,
            contrast=kind_of(use),
            seed=derive_seed(cell.draws, "gan"),
            preview_every=0,
            save_every=0,
        )

    def facts(self) -> dict[str, object]:
        """Everything that changes results but which cells there are, as JSON values."""
        listed = ("families", "contrasts", "phases", "labels", "objects", "seeds")
        common = {k: v for k, v in asdict(self).items() if k not in listed}
        plans = {
            name: {"networks": asdict(plan.family), "settings": plan.settings.as_dict()}
            for name, plan in self.families.items()
        }
        return {**common, "nsync": __version__, "families": plans}


DECIDED_SIZES = {
    "image_size": "`image_size` of the study decides",
    "text_width": "`encoder_width` decides",
}
