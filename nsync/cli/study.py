"""Which settings suit this style best? Train arms with several seeds, then compare and score them.

    arms:
      plain: {rule: plain, batch: 4}
      overlap: {rule: overlap}

Every arm is `settings` with its own changes. All runs are those of `nsync train`, named
<name>_<arm>_<seed>: the same command goes on where it was stopped. Every seed's LoRAs draw the same
captions, and one report for each seed says which arm comes nearest to the style.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.request import Request, check
from ..files import numbered
from ..names import check_name
from ..negatives import NegativeSettings
from ..runs.judgements import Judgement
from ..settings import TrainSettings
from ..style_set import StyleSet
from ..trained import LORA
from .compare import BASE, COMPARISONS, Drawing, draw_arms, read_learned, write_arms
from .evaluate import EVALUATIONS, Encoders, pictures_of, scored
from .keys import Arms
from .main import Outcome
from .models import load_denoiser
from .negatives import negatives_problems
from .runs import HeadlessRun, prepare
from .sections import Model, Pictures, Preview, a_folder, a_name, a_place
from .sets import missing, negatives_folder, painted, read_pictures
from .train import TrainFile

if TYPE_CHECKING:
    from ..pipelines.denoiser import DiffusersDenoiser


@dataclass(frozen=True)
class StudyFile:
    """What is asked.

    Attributes:
        name: of the study.
        output: results go there, as those of train, compare and evaluate.
        seeds: of the trainings; each stands over settings.seed.
        arms: changes of settings by the name of each arm.
        candidate: the arm that the verdict is about; empty: the last one.
        references: a folder of real pictures of the style that training has not seen, 5 or more.
        negatives_name: the folder of the negatives under <output>/nsync/negatives.
    """

    name: str = "study"
    output: Path = Path("output")
    seeds: tuple[str, ...] = ("0",)
    arms: Arms = field(default_factory=Arms)
    candidate: str = ""
    references: Path | None = None
    negatives_name: str = "negatives"
    model: Model = field(default_factory=Model)
    style_set: Pictures = field(default_factory=Pictures)
    negatives: NegativeSettings = field(default_factory=NegativeSettings)
    settings: TrainSettings = field(default_factory=TrainSettings)
    drawing: Drawing = field(default_factory=Drawing)
    encoders: Encoders = field(default_factory=Encoders)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        whole = all(seed.isdigit() for seed in self.seeds) and bool(self.seeds)
        once = len(set(self.seeds)) == len(self.seeds)
        known = not self.candidate or self.candidate in self.arms
        return [
            a_name(self, "name"),
            a_name(self, "negatives_name"),
            a_place(self, "output"),
            a_folder(self, "references", needed=True),
            ("seeds", "whole numbers from 0, each once", " ".join(self.seeds), whole and once),
            ("arms", "at least one arm", "none", bool(self.arms)),
            ("candidate", "one of the arms", self.candidate, known),
        ]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it as a whole: (key, what)."""
        yield from negatives_problems(self.negatives, self.style_set.token)
        for name, changes in self.arms.items():
            try:
                check_name(name)
            except InputError as error:
                yield f"arms.{name}", f"expected {error.expected}"
            settings = replace(self.settings, **changes)
            if not settings.trains_lora:
                yield f"arms.{name}.trains", "expected a LoRA, which is what arms are drawn with"
            for key, rule, value, good in settings.judgements():
                if not good:
                    yield f"arms.{name}.{key}", f"expected {rule}; got {value!r}"

    def cell(self, arm: str, seed: str) -> TrainFile:
        """What is asked of the training of an arm by a seed."""
        changes = self.arms[arm] | {"seed": int(seed), "pause_every": 0}
        settings = replace(self.settings, **changes)
        return TrainFile(
            name=f"{self.name}_{arm}_{seed}",
            output=self.output,
            model=self.model,
            style_set=self.style_set,
            settings=settings,
        )


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = StudyFile()
SHARES = ()
LEARNS = True


def run(asked: StudyFile, dry_run: bool = False) -> Outcome:
    """Train what is not trained yet, draw, score."""
    comparison = asked.drawing.comparison()
    references = pictures_of(asked.references, "references")
    encoders = asked.encoders.load(as_paper=False)
    style_set, report = read_pictures(asked.style_set)
    denoiser = load_denoiser(asked.model)
    folder = negatives_folder(asked.output, asked.negatives_name)
    lacking, count = missing(asked.negatives, denoiser, style_set, folder)
    if dry_run:
        cells = f"{len(asked.arms)} arms by {len(asked.seeds)} seeds"
        told = f"{cells}; {count} negatives, {lacking} of them to be painted."
        return Outcome("\n".join([report, told, "Nothing was begun."]))
    whole = painted(asked.negatives, denoiser, style_set, folder)
    verdicts = []
    for seed in asked.seeds:
        files = [_trained(asked, arm, seed, denoiser, whole) for arm in asked.arms]
        name = f"{asked.name}_{seed}"
        learned = read_learned(denoiser, comparison.token, files)
        arms = draw_arms(replace(comparison, seed=int(seed)), denoiser, learned)
        write_arms(numbered(asked.output / "nsync" / COMPARISONS / name), arms)
        candidate = files[list(asked.arms).index(asked.candidate)] if asked.candidate else files[-1]
        request = Request(references, tuple(arms), candidate.stem, BASE, seed=int(seed))
        check(request)
        place = numbered(asked.output / "nsync" / EVALUATIONS / name)
        verdicts.append(f"Seed {seed}: {scored(request, encoders, asked.output, place)}")
    return Outcome("\n".join(verdicts))


def _trained(
    asked: StudyFile, arm: str, seed: str, denoiser: "DiffusersDenoiser", style_set: StyleSet
) -> Path:
    """The LoRA of an arm and seed; one that is there is not trained again."""
    cell = asked.cell(arm, seed)
    runs: list[HeadlessRun] = prepare(cell, cell.settings, denoiser, style_set)
    return runs[0].train(Preview()).files[LORA]
