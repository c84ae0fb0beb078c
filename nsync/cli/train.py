"""Teach the model a style by the pictures of a style set: a LoRA, an embedding, or both.

FILE is YAML with the keys below, or the run.yaml of a run, made here or by the graph: the run then
goes on where it stands. With `output` at ComfyUI's own output folder, runs, negatives and LoRAs are
those that the graph sees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..negatives import NegativeSettings
from ..presets import AS_SET, PRESETS, filled_in
from ..processes import Processes, joined
from ..runs.judgements import Judgement, one_of
from ..runs.log import RunStoppedError
from ..runs.parts import TrainResult
from ..runs.recipe import ANEW, CONTINUE
from ..runs.several import LABELS, ONE_STYLE, each
from ..settings import TrainSettings
from ..training import check_processes
from . import plan
from .main import STOPPED, Outcome
from .models import load_denoiser
from .negatives import negatives_problems
from .runs import ended, prepare
from .sections import Model, Pictures, Preview, a_file, a_name, a_place
from .sets import as_if_painted, missing, negatives_folder, painted, read_pictures


@dataclass(frozen=True)
class TrainFile:
    """What is asked.

    Attributes:
        name: of the run, and of the files that it saves.
        output: results go there, as under ComfyUI's own output folder: runs to nsync/runs/<name>,
            LoRAs to loras.
        embeddings: where embeddings go; nothing given, to <output>/embeddings. ComfyUI finds them
            in its models/embeddings.
        if_run_exists: `continue` a run of this name, or `start anew` under a numbered name.
        start_from: a LoRA file to train further; its own layers, ranks and alphas then count.
        preset: settings for a card's memory, or those of the paper; they stand over `settings`.
        labels: `one style` of all pictures, or `one run per label`, named <name>_<label>.
        negatives_name: the folder of the negatives under <output>/nsync/negatives.
    """

    name: str = "nsync_style"
    output: Path = Path("output")
    embeddings: Path | None = None
    if_run_exists: str = CONTINUE
    start_from: Path | None = None
    preset: str = AS_SET
    labels: str = ONE_STYLE
    negatives_name: str = "negatives"
    model: Model = field(default_factory=Model)
    style_set: Pictures = field(default_factory=Pictures)
    negatives: NegativeSettings = field(default_factory=NegativeSettings)
    settings: TrainSettings = field(default_factory=TrainSettings)
    preview: Preview = field(default_factory=Preview)

    @property
    def wanted(self) -> TrainSettings:
        """The settings with what the preset says."""
        return filled_in(self.settings, self.preset)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        choices = {
            "if_run_exists": (CONTINUE, ANEW),
            "preset": PRESETS,
            "labels": LABELS,
        }
        chosen = [one_of(self, name, known) for name, known in choices.items()]
        names = [a_name(self, name) for name in ("name", "negatives_name")]
        places = [a_place(self, name) for name in ("output", "embeddings") if getattr(self, name)]
        return [*names, *places, *chosen, a_file(self, "start_from")]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it as a whole: (key, what)."""
        yield from negatives_problems(self.negatives, self.style_set.token)
        wanted = self.wanted if self.preset in PRESETS else self.settings
        if self.model.weights != "fp32" and wanted.precision == "fp32":
            yield (
                "model.weights",
                f"expected fp32 with settings.precision fp32; got {self.model.weights}. Set "
                "settings.precision to bf16, or hold the weights in fp32",
            )


FILE = "YAML file with the keys below, or a run's run.yaml; flags stand over it"
DEFAULT = TrainFile()
SHARES = ()
LEARNS = True
SHARED = True


def run(asked: TrainFile, dry_run: bool = False) -> Outcome:
    """Train, or say what it would take; by all processes that were started together."""
    with joined() as processes:
        return _run(asked, dry_run, processes)


def _run(asked: TrainFile, dry_run: bool, processes: Processes) -> Outcome:
    style_set, report = read_pictures(asked.style_set)
    denoiser = load_denoiser(asked.model)
    settings, told = asked.wanted, [report]
    check_processes(settings, denoiser, processes)
    if settings.uses_painted and not style_set.has_negatives:
        folder = negatives_folder(asked.output, asked.negatives_name)
        lacking, count = missing(asked.negatives, denoiser, style_set, folder)
        told.append(f"{count} negatives in {folder}, {lacking} of them to be painted.")
        if dry_run and lacking:
            style_set = as_if_painted(style_set, denoiser.identity)
        else:
            style_set = painted(asked.negatives, denoiser, style_set, folder, processes)
    runs = prepare(asked, settings, denoiser, style_set)
    processes.check_same("if_run_exists", " ".join(str(one.folder) for one in runs))
    if dry_run:
        told += [plan.of_model(denoiser)]
        told += [plan.of_training(settings, denoiser, style_set, runs[0].start)]
        told += [f"Run {one.folder}: {one.standing}." for one in runs]
        return Outcome("\n".join([*told, plan.room(asked.output), "Nothing was begun."]))
    made, stopped = each(runs, lambda one, _: one.train(asked.preview, processes))
    return _told(made, stopped, settings)


def _told(
    made: Sequence[TrainResult], stopped: Sequence[RunStoppedError], settings: TrainSettings
) -> Outcome:
    outcomes = [ended(result, settings.steps) for result in made]
    outcomes += [Outcome(str(error), STOPPED) for error in stopped]
    code = STOPPED if stopped else max(outcome.code for outcome in outcomes)
    return Outcome("\n".join(outcome.text for outcome in outcomes), code)
