"""Runs without the graph: what is checked before one, and where its files go."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint import export_learned
from ..denoiser import SamplerSettings
from ..errors import InputError
from ..files import write_atomic
from ..learner import Learned
from ..lora_file import LowRank, match_layers, read_lora
from ..names import export_title, one_word
from ..pictures.images import png, to_picture
from ..processes import ONE, Processes
from ..runs.folder import RunFolder
from ..runs.recipe import run_place, to_train_in, write_recipe
from ..runs.several import sets_of_runs
from ..settings import TrainSettings
from ..style_set import StyleSet
from ..trained import EMBEDDING, LORA, every_layer
from ..training import TrainResult, check_runs_whole, run_config, train
from .main import PAUSED, Outcome
from .progress import items, steps
from .ready import ready
from .sections import Preview

if TYPE_CHECKING:
    from ..pipelines.denoiser import DiffusersDenoiser
    from .train import TrainFile


@dataclass(frozen=True)
class HeadlessRun:
    """A run of a training.

    Attributes:
        folder: see `nsync.runs.recipe.run_place`.
        loras, embeddings: folders that take what is saved.
        names: what a LoRA file calls the layers, by key.
        told: what the run's own file says beside settings and set, as plain values.
    """

    denoiser: "DiffusersDenoiser"
    style_set: StyleSet
    settings: TrainSettings
    folder: Path
    loras: Path
    embeddings: Path
    names: Mapping[str, str]
    start: Mapping[str, LowRank] | None = None
    told: Mapping[str, object] = field(default_factory=dict)

    @property
    def standing(self) -> str:
        """How far it is, in words."""
        done = RunFolder(self.folder).steps()
        return f"{done[-1] if done else 0} of {self.settings.steps} steps made"

    def train(self, preview: Preview, processes: Processes = ONE) -> TrainResult:
        """Train, with a bar; what was learned is saved at the end, or at a stop."""
        with items("Encoding") as on_item, steps(self.folder.name, self.settings.steps) as on_step:
            return train(
                self.settings,
                self.denoiser,
                self.style_set,
                self.folder,
                self._export,
                start=self.start,
                names=self.names,
                on_step=on_step,
                on_item=on_item,
                preview=partial(self._preview, preview),
                ready=partial(self._ready, processes.is_lead),
                processes=processes,
            )

    @contextmanager
    def _ready(self, leads: bool) -> Iterator[None]:
        """The model can be trained; the run has begun, and can be gone on with by its recipe."""
        if leads:
            write_recipe(self.folder, self.settings, self.style_set, self.told)
        with ready(self.settings, self.denoiser):
            yield

    def _preview(self, preview: Preview, done: int) -> None:
        first = self.style_set.items[0]
        pixels = self.denoiser.generate(
            [preview.prompt.strip() or self.style_set.prompt(first)],
            [self.settings.seed],
            self.style_set.size(first, self.denoiser.size_multiple),
            SamplerSettings(preview.steps, preview.guidance, "euler", "normal"),
        )
        path = self.folder / "samples" / f"step_{done:06}.png"
        write_atomic(path, png(to_picture(pixels[0])))

    def _export(self, learned: Learned, made: int) -> dict[str, Path]:
        title = export_title(self.folder.name, made, self.settings.steps)
        places = {
            LORA: self.loras / f"{title}.safetensors",
            EMBEDDING: self.embeddings / f"{one_word(title)}.safetensors",
        }
        config = run_config(self.settings, self.denoiser, self.style_set, self.start)
        return export_learned(learned, places, self.names, config, made, title)


def prepare(
    asked: "TrainFile", settings: TrainSettings, denoiser: "DiffusersDenoiser", style_set: StyleSet
) -> list[HeadlessRun]:
    """The runs that are asked for, judged before any work.

    Raises:
        InputError: a bad name, an unfit set, a LoRA that does not fit, a run of other settings, a
            place that cannot be written, a full disk.
    """
    folders, names = _folders(asked, settings, style_set), denoiser.lora_names
    start = _start(asked.start_from, settings, denoiser)
    loras = asked.output / "loras"
    embeddings = asked.embeddings or asked.output / "embeddings"
    check_runs_whole(settings, denoiser, folders, names, loras, start)
    told = _as_told(asked)
    return [
        HeadlessRun(denoiser, each, settings, folder, loras, embeddings, names, start, told)
        for folder, each in folders.items()
    ]


def _as_told(asked: "TrainFile") -> dict[str, object]:
    """What a run's own file has to say, wherever it lies, to go on with the very run."""
    model = _paths(asked.model, "path", "config") | {"weights": asked.model.weights}
    places = _paths(asked, "embeddings", "start_from")
    return {"model": model, **places, "preview": asdict(asked.preview)}


def _paths(asked: object, *names: str) -> dict[str, str]:
    """Those that are given, of which nothing depends on where one is."""
    given = {name: getattr(asked, name) for name in names}
    return {name: str(path.absolute()) for name, path in given.items() if path}


def ended(result: TrainResult, of: int) -> Outcome:
    """What is said of a run of so many steps."""
    lines = [f"Saved {file}" for file in result.files.values()]
    if result.over:
        return Outcome("\n".join(lines))
    lines.append(f"Paused after {result.step} of {of} steps: run it again to go on.")
    return Outcome("\n".join(lines), PAUSED)


def load_lora(file: Path, denoiser: "DiffusersDenoiser", text: bool = True) -> dict[str, LowRank]:
    """A LoRA file's factors by layer of this model.

    Raises:
        InputError: no LoRA, or one of another model.
    """
    return match_layers(read_lora(file), denoiser.lora_spellings, every_layer(denoiser, text))


def _folders(
    asked: "TrainFile", settings: TrainSettings, style_set: StyleSet
) -> dict[Path, StyleSet]:
    sets = sets_of_runs(settings, style_set, asked.name, asked.labels)
    places = {name: run_place(asked.output, name) for name in sets}
    return {to_train_in(places[name], asked.if_run_exists): own for name, own in sets.items()}


def _start(
    file: Path | None, settings: TrainSettings, denoiser: "DiffusersDenoiser"
) -> dict[str, LowRank] | None:
    if file is None:
        return None
    if not settings.trains_lora:
        raise InputError("start_from", "nothing, since no LoRA is trained", str(file))
    return load_lora(file, denoiser, settings.text_encoders)
