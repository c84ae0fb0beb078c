"""Draw the same prompts with the same seeds by the base and by each LoRA or embedding.

The pictures go to a folder for each arm, a labelled grid beside them; `nsync evaluate` scores them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from ..adapters import adapters
from ..denoiser import SamplerSettings
from ..embedding_file import read_embedding
from ..errors import InputError, told_as
from ..evaluation.arms import Arm, check_arms
from ..evaluation.drawing import Comparison, arm_of
from ..evaluation.grid import grid
from ..evaluation.pictures import as_pictures
from ..files import numbered, write_atomic
from ..names import check_name
from ..pictures.images import png
from ..runs.judgements import Judgement, at_least
from ..style_set import DEFAULT_TEMPLATE
from ..trained import networks, standing_for
from . import plan
from .main import Outcome
from .models import load_denoiser
from .progress import items
from .runs import load_lora
from .sections import Model, a_name, a_place, a_template, files

if TYPE_CHECKING:
    from ..pipelines.denoiser import DiffusersDenoiser

BASE, LISTING = "base", "comparison.json"
COMPARISONS = "comparisons"
_KINDS = "pictures", "plain"
Learned = Callable[[], AbstractContextManager[None]]
"""For the block the model has a LoRA, or a word stands for an embedding."""


@dataclass(frozen=True)
class Drawing:
    """What every arm draws, and how.

    Attributes:
        captions: contents, without a word about the style, that training has not seen; 20 or more
            make a verdict.
        token: the word that stands for the style in the prompts; in a study the set's.
        template: how caption and token make a prompt, with {caption} and {token}; likewise.
        seed: of the first picture of each caption; every arm has the same seeds.
        per_caption: pictures of each caption and arm.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        drift: draw every caption without the token as well, to see what else has changed.
    """

    captions: tuple[str, ...] = ()
    token: str = "sks"
    template: str = DEFAULT_TEMPLATE
    seed: int = 0
    per_caption: int = 1
    width: int = 512
    height: int = 512
    drift: bool = False
    sampler: SamplerSettings = field(default_factory=lambda: SamplerSettings(steps=30))

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [
            ("captions", "at least one caption", "none", bool(self.captions)),
            *([a_template(self, "template")] if self.template else []),
            *(at_least(self, name, 1) for name in ("per_caption", "width", "height")),
            at_least(self, "seed", 0),
        ]

    def comparison(self) -> Comparison:
        """The same for the library."""
        return Comparison(
            self.captions, self.token, self.template, self.seed, self.per_caption,
            (self.width, self.height), self.sampler, self.drift,
        )  # fmt: skip


@dataclass(frozen=True)
class CompareFile:
    """What is asked.

    Attributes:
        name: of the comparison.
        output: results go to <output>/nsync/comparisons/<name>; one that is there is kept, and the
            new one numbered.
        loras: files of the arms; an arm has its file's name.
        embeddings: files of embeddings, likewise.
    """

    name: str = "comparison"
    output: Path = Path("output")
    loras: tuple[Path, ...] = ()
    embeddings: tuple[Path, ...] = ()
    model: Model = field(default_factory=Model)
    drawing: Drawing = field(default_factory=Drawing)

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        loras, embeddings = files(self, "loras"), files(self, "embeddings")
        return [a_name(self, "name"), a_place(self, "output"), loras, embeddings]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with it as a whole: (key, what)."""
        for name in ("token", "template"):
            if not getattr(self.drawing, name).strip():
                yield f"drawing.{name}", "expected a text; got nothing"


FILE = "YAML file with the keys below; flags stand over it"
DEFAULT = CompareFile()
SHARES = ()
LEARNS = True


def run(asked: CompareFile, dry_run: bool = False) -> Outcome:
    """Draw all arms."""
    folder = numbered(asked.output / "nsync" / COMPARISONS / check_name(asked.name))
    comparison = asked.drawing.comparison()
    denoiser = load_denoiser(asked.model)
    check_drawing(comparison, denoiser)
    learned = read_learned(denoiser, comparison.token, asked.loras, asked.embeddings)
    if dry_run:
        told = f"{1 + len(learned)} arms of {len(comparison.contents)} pictures each, to {folder}."
        return Outcome("\n".join([plan.of_model(denoiser), told, "Nothing was begun."]))
    arms = draw_arms(comparison, denoiser, learned)
    write_arms(folder, arms)
    return Outcome(f"{len(arms)} arms in {folder}; to score them: nsync evaluate")


def check_drawing(comparison: Comparison, denoiser: "DiffusersDenoiser") -> None:
    """Raise `InputError` for what this model cannot draw: a size, a sampler, a scheduler."""
    try:
        denoiser.check_drawing(comparison.size, comparison.sampler)
    except InputError as error:
        key = "width, drawing.height" if error.name == "size" else f"sampler.{error.name}"
        raise InputError(f"drawing.{key}", error.expected, error.got, error.remedy) from error


def read_learned(
    denoiser: "DiffusersDenoiser",
    token: str,
    loras: Sequence[Path],
    embeddings: Sequence[Path] = (),
) -> dict[str, Learned]:
    """How the model comes to have what each file holds, by the files' names.

    Args:
        token: the word that embeddings stand for.

    Raises:
        InputError: a file is of another model, or damaged; two files have one name.
    """
    names = [BASE, *(file.stem for file in (*loras, *embeddings))]
    if len(set(names)) < len(names):
        given = ", ".join(map(str, (*loras, *embeddings)))
        raise InputError("loras", f"files of different names, none of them {BASE!r}", given)
    with told_as("loras"):
        learned = {file.stem: of_lora(file, denoiser) for file in loras}
    return learned | {file.stem: of_embedding(file, denoiser, token) for file in embeddings}


def of_lora(file: Path, denoiser: "DiffusersDenoiser") -> Learned:
    """How the model comes to have a LoRA.

    Raises:
        InputError: no LoRA, or one of another model.
    """
    factors = load_lora(file, denoiser)
    return partial(adapters, networks(denoiser), factors, denoiser.device)


def of_embedding(file: Path, denoiser: "DiffusersDenoiser", token: str) -> Learned:
    """How the token comes to stand for an embedding.

    Raises:
        InputError: see `read_embedding`.
    """
    return partial(standing_for, denoiser, token, read_embedding(file, denoiser))


def draw_arms(
    comparison: Comparison, denoiser: "DiffusersDenoiser", learned: Mapping[str, Learned]
) -> list[Arm]:
    """The base's arm, then one with each of what was learned."""
    arms = []
    for name in (BASE, *learned):
        with items(f"Drawing {name}") as on_item, learned.get(name, nullcontext)():
            arms.append(arm_of(comparison, denoiser, name, comparison.token, on_item))
    return arms


def write_arms(folder: Path, arms: Sequence[Arm]) -> None:
    """Write the pictures, a grid of them, and last the listing that `read_arms` reads."""
    told = []
    for arm in arms:
        sets = dict(zip(_KINDS, (arm.pictures, arm.plain), strict=True))
        for kind, pictures in sets.items():
            for number, picture in enumerate(pictures):
                image = Image.fromarray(picture.movedim(0, -1).numpy())
                write_atomic(folder / arm.name / f"{kind}_{number:04}.png", png(image))
        counts = {kind: len(pictures) for kind, pictures in sets.items()}
        told.append({"name": arm.name, "prompts": arm.prompts, "captions": arm.captions, **counts})
    write_atomic(folder / "grid.png", png(Image.fromarray(grid(arms))))
    write_atomic(folder / LISTING, json.dumps({"arms": told}, indent=1) + "\n")


def read_arms(folder: Path) -> list[Arm]:
    """The arms of a comparison's folder.

    Raises:
        InputError: the folder holds no whole comparison.
    """
    try:
        told = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        arms = [_arm(folder, one) for one in told["arms"]]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{folder} ({type(error).__name__}: {error})"
        raise InputError("comparison", "a folder that nsync compare has made", got) from error
    check_arms(arms)
    return arms


def _arm(folder: Path, told: dict) -> Arm:
    pictures, plain = (_pictures(folder / told["name"], kind, told[kind]) for kind in _KINDS)
    return Arm(told["name"], pictures, tuple(told["prompts"]), tuple(told["captions"]), plain)


def _pictures(folder: Path, kind: str, count: int) -> tuple[Tensor, ...]:
    return tuple(as_pictures([folder / f"{kind}_{place:04}.png" for place in range(count)]))
