"""Paint the negative set: every caption of the style set, by the base, in a generic style.

What is in the folder already is not painted again, whoever painted it. FILE may be that of `nsync
train`: what is not of the negatives is passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..negatives import NegativeSettings
from ..processes import Processes, check_device, joined
from ..runs.judgements import Judgement
from . import plan
from .main import Outcome
from .models import load_denoiser
from .sections import Model, Pictures, a_name, a_place
from .sets import missing, negatives_folder, painted, read_pictures


@dataclass(frozen=True)
class NegativesFile:
    """What is asked.

    Attributes:
        output: results go there, as under ComfyUI's own output folder.
        negatives_name: the folder under <output>/nsync/negatives.
    """

    output: Path = Path("output")
    negatives_name: str = "negatives"
    model: Model = field(default_factory=Model)
    style_set: Pictures = field(default_factory=Pictures)
    negatives: NegativeSettings = field(default_factory=NegativeSettings)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [a_name(self, "negatives_name"), a_place(self, "output")]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it as a whole: (key, what)."""
        yield from negatives_problems(self.negatives, self.style_set.token)


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = NegativesFile()
SHARES = ("train",)
LEARNS = True
SHARED = True


def run(asked: NegativesFile, dry_run: bool = False) -> Outcome:
    """Paint what is not there yet; by all processes that were started together."""
    with joined() as processes:
        return _run(asked, dry_run, processes)


def _run(asked: NegativesFile, dry_run: bool, processes: Processes) -> Outcome:
    folder = negatives_folder(asked.output, asked.negatives_name)
    style_set, report = read_pictures(asked.style_set)
    denoiser = load_denoiser(asked.model)
    check_device(denoiser.device)
    lacking, count = missing(asked.negatives, denoiser, style_set, folder)
    if dry_run:
        told = f"{count} negatives in {folder}, {lacking} of them to be painted."
        return Outcome("\n".join([report, plan.of_model(denoiser), told, plan.room(folder)]))
    painted(asked.negatives, denoiser, style_set, folder, processes)
    return Outcome(f"{count} negatives in {folder}, {lacking} of them new.")


def negatives_problems(settings: NegativeSettings, token: str) -> Iterator[tuple[str, str]]:
    """What is wrong with settings for negatives of the style that this token stands for."""
    if not token.strip():  # the set's own rules tell of it
        return
    try:
        settings.check(token)
    except InputError as error:
        key = {"generic_words": "words"}.get(error.name, error.name)
        remedy = f". {error.remedy.removesuffix('.')}" if error.remedy else ""
        yield f"negatives.{key}", f"expected {error.expected}; got {error.got}{remedy}"
