"""Which settings suit this style best? Train arms with several seeds, then compare and score them.

    arms:
      plain: {rule: plain, batch: 4}
      overlap: {rule: overlap}

Every arm is `settings` with its own changes. All runs are those of `nsync train`, named
<name>_<arm>_<seed>: the same command goes on where it was stopped. Every seed's LoRAs draw the same
captions, and one report for each seed says which arm comes nearest to the style. An arm whose
numbers go bad is left out of its seed's report, and all others are trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.request import Request, check, check_references
from ..files import numbered
from ..names import check_name
from ..negatives import NegativeSettings
from ..runs.judgements import Judgement
from ..runs.several import each
from ..settings import TrainSettings
from ..style_set import StyleSet
from ..trained import EMBEDDING, LORA
from .cells import Cells
from .compare import (
    BASE,
    COMPARISONS,
    Drawing,
    Learned,
    check_drawing,
    draw_arms,
    of_embedding,
    of_lora,
    write_arms,
)
from .evaluate import EVALUATIONS, Encoders, pictures_of, scored
from .keys import Arms
from .main import DONE, STOPPED, Outcome
from .models import load_denoiser
from .negatives import negatives_problems
from .sections import Model, Pictures, Preview, a_folder, a_name, a_place
from .sets import read_pictures
from .train import TrainFile

if TYPE_CHECKING:
    from ..evaluation.encoders import NetworkEncoder
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
    drawing: Drawing = field(default_factory=lambda: Drawing(token="", template=""))
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
        if self.style_set.listing is None:
            try:
                _of_set(self.drawing, self.style_set)
            except InputError as error:
                yield error.name, f"expected {error.expected}; got {error.got}"
        for name, changes in self.arms.items():
            yield from self._name_problems(name)
            for key, rule, value, good in replace(self.settings, **changes).judgements():
                if not good:
                    yield f"arms.{name}.{key}", f"expected {rule}; got {value!r}"

    def _name_problems(self, arm: str) -> Iterator[tuple[str, str]]:
        longest = max(self.seeds, key=len, default="")
        for name in (arm, self.run_name(arm, longest)):
            try:
                check_name(name)
            except InputError as error:
                yield f"arms.{arm}", f"expected {error.expected}; got {name!r}"
                return

    def run_name(self, arm: str, seed: str) -> str:
        """What the run of an arm and seed is called."""
        return f"{self.name}_{arm}_{seed}"

    @property
    def cells(self) -> dict[tuple[str, str], "TrainFile"]:
        """What is asked of each training, by (arm, seed); seed by seed."""
        return {(arm, seed): self.cell(arm, seed) for seed in self.seeds for arm in self.arms}

    def cell(self, arm: str, seed: str) -> TrainFile:
        """What is asked of the training of an arm by a seed."""
        changes = self.arms[arm] | {"seed": int(seed), "pause_every": 0}
        settings = replace(self.settings, **changes)
        return TrainFile(
            name=self.run_name(arm, seed),
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
    """Train what is not trained yet, draw, score; arms whose numbers go bad are told at the end."""
    references = pictures_of(asked.references, "references")
    check_references(references)
    style_set, report = read_pictures(asked.style_set)
    drawing = _of_set(asked.drawing, style_set)
    encoders = asked.encoders.load(as_paper=False)
    denoiser = load_denoiser(asked.model)
    check_drawing(drawing.comparison(), denoiser)
    cells = Cells(asked, denoiser, style_set)
    cells.check()
    if dry_run:
        told = f"{len(asked.arms)} arms by {len(asked.seeds)} seeds; {cells.told}"
        return Outcome("\n".join([report, told, "Nothing was begun."]))
    runs = cells.runs()
    judge = _Judge(asked, drawing, denoiser, encoders, references)
    verdicts, stopped = [], []
    for seed in asked.seeds:
        trained, failed = each(
            list(asked.arms), lambda arm, _, s=seed: (arm, runs[arm, s].train(Preview()).files)
        )
        verdicts.append(f"Seed {seed}: {judge.verdict(seed, dict(trained))}")
        stopped += map(str, failed)
    return Outcome("\n".join([*verdicts, *stopped]), STOPPED if stopped else DONE)


@dataclass(frozen=True)
class _Judge:
    """Draws what a seed's arms have learned, and scores it."""

    asked: StudyFile
    drawing: Drawing
    denoiser: "DiffusersDenoiser"
    encoders: "list[NetworkEncoder]"
    references: tuple

    def verdict(self, seed: str, trained: Mapping[str, Mapping[str, Path]]) -> str:
        """Of the arms that were not stopped, given the files of each."""
        asked, candidate = self.asked, self.asked.candidate or list(self.asked.arms)[-1]
        if candidate not in trained:
            return f"no verdict, for {candidate} was stopped."
        learned = {
            asked.run_name(arm, seed): _learned(files, self.denoiser, self.drawing.token)
            for arm, files in trained.items()
        }
        comparison = replace(self.drawing.comparison(), seed=int(seed))
        arms = draw_arms(comparison, self.denoiser, learned)
        name = f"{asked.name}_{seed}"
        write_arms(numbered(asked.output / "nsync" / COMPARISONS / name), arms)
        judged = asked.run_name(candidate, seed)
        request = Request(self.references, tuple(arms), judged, BASE, seed=int(seed))
        check(request)
        place = numbered(asked.output / "nsync" / EVALUATIONS / name)
        return scored(request, self.encoders, asked.output, place)


def _of_set(drawing: Drawing, words: StyleSet | Pictures) -> Drawing:
    """The drawing in the words that the arms are trained with.

    Raises:
        InputError: it asks for other ones.
    """
    for name in ("token", "template"):
        given, learned = getattr(drawing, name), getattr(words, name)
        if given not in ("", learned):
            expected = f"the set's, {learned!r}, which the arms are trained with, or none"
            raise InputError(f"drawing.{name}", expected, repr(given))
    return replace(drawing, token=words.token, template=words.template)


def _learned(files: Mapping[str, Path], denoiser: "DiffusersDenoiser", token: str) -> Learned:
    """How the model comes to have all that an arm has trained."""
    parts = [of_lora(files[LORA], denoiser)] if LORA in files else []
    parts += [of_embedding(files[EMBEDDING], denoiser, token)] if EMBEDDING in files else []
    return partial(_together, parts)


@contextmanager
def _together(parts: Sequence[Learned]) -> Iterator[None]:
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(part())
        yield
