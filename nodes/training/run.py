"""One training run as the host sees it: where its files go, what is checked, what is shown."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import comfyui_version
import folder_paths
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from ...nsync.checkpoint import export_learned
from ...nsync.denoiser import SamplerSettings
from ...nsync.errors import InputError
from ...nsync.evaluation.watch import StyleWatch
from ...nsync.files import copied
from ...nsync.learner import Learned
from ...nsync.lora_file import LowRank, match_layers, read_lora
from ...nsync.names import export_title, one_word
from ...nsync.runs.recipe import CONTINUE, to_train_in, write_recipe
from ...nsync.settings import TrainSettings
from ...nsync.style_set import StyleSet
from ...nsync.trained import (
    EMBEDDING,
    LORA,
    every_layer,
)
from ...nsync.training import TrainResult, check_runs_whole, run_config, train
from ..evaluation.evaluator import set_pictures, vector_store
from ..evaluation.watch import WatchRequest
from ..folders import run_folder
from ..host.adapter import HostDenoiser
from ..host.lora import fused_spellings, lora_folder, lora_names, lora_spellings, text_lora_names
from ..progress import HostStyleWatch, Previews, TrainingProgress, on_picture

NOTHING = "nothing"

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingRun:
    """A run on the host's objects.

    Attributes:
        folder: `<output>/nsync/runs/<name>`; see `nsync.runs.folder`.
        names: how the LoRA file calls the layers.
        start: an existing LoRA to go on from.
    """

    denoiser: HostDenoiser
    style_set: StyleSet
    settings: TrainSettings
    folder: Path
    names: Mapping[str, str]
    start: Mapping[str, LowRank] | None

    @classmethod
    def prepare(
        cls,
        sockets: tuple[ModelPatcher, CLIP, VAE],
        sets: Mapping[str, StyleSet],
        settings: TrainSettings,
        start_from: str = NOTHING,
        if_run_exists: str = CONTINUE,
    ) -> "list[TrainingRun]":
        """Judge what the host knows, before any work.

        Args:
            sets: of the runs, by the run's name.

        Raises:
            InputError: a bad name or setting, an unfit set, layers without a name, a LoRA that
                does not fit, a full disk.
        """
        settings.check()
        places = {name: to_train_in(run_folder(name), if_run_exists) for name in sets}
        folders = {places[name]: style_set for name, style_set in sets.items()}
        denoiser = HostDenoiser(*sockets)
        names = lora_names(sockets[0]) | text_lora_names(sockets[1])
        start = _start(start_from, settings, denoiser, sockets)
        check_runs_whole(settings, denoiser, folders, names, lora_folder(), start)
        return [
            cls(denoiser, style_set, settings, folder, names, start)
            for folder, style_set in folders.items()
        ]

    def train(
        self, progress: TrainingProgress, previews: Previews, watch: StyleWatch | None = None
    ) -> TrainResult:
        """Train, showing every step; what was learned is saved at the end, or at a stop.

        Raises:
            InputError, RunStoppedError: see `nsync.training.train`.
        """
        result = train(
            self.settings,
            self.denoiser,
            self.style_set,
            self.folder,
            self.export,
            start=self.start,
            names=self.names,
            on_step=progress.on_step,
            on_item=on_picture(),
            preview=previews,
            watch=watch,
            ready=self._ready,
        )
        files = {kind: _listed(kind, file) for kind, file in result.files.items()}
        return replace(result, files=files)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The model can be trained; the run has begun, and can be gone on with by its recipe."""
        # The command line knows the output folder, but not where the host looks for embeddings.
        places = {"embeddings": str(embedding_folder().absolute())}
        more = places if self.settings.trains_embedding else {}
        write_recipe(self.folder, self.settings, self.style_set, more)
        dtype, text = _DTYPES[self.settings.precision], self.settings.trains_text
        with self.denoiser.trainable(dtype, text):
            yield

    def previews_of(
        self, prompt: str, sampler: SamplerSettings, progress: TrainingProgress
    ) -> Previews:
        """The run's previews: of `prompt`, or of the first picture's own prompt if it is empty."""
        first = self.style_set.items[0]
        return Previews(
            self.denoiser,
            prompt.strip() or self.style_set.prompt(first),
            self.style_set.size(first, self.denoiser.size_multiple),
            sampler,
            self.settings.seed,
            self.folder / "samples",
            progress,
        )

    def watch_of(
        self, request: WatchRequest, sampler: SamplerSettings, progress: TrainingProgress
    ) -> StyleWatch:
        """What scores the run's style: the request on the run's own model, set and prompts."""
        return HostStyleWatch(
            request.comparison(self.style_set, sampler, self.denoiser.size_multiple),
            self.denoiser,
            set_pictures(self.style_set),
            request.encoders,
            self.folder / "scores",
            vector_store(),
            self._write,
            progress.show,
            lambda done, total: throw_exception_if_processing_interrupted(),
            request.patience,
        )

    def export_best(self, watch: StyleWatch) -> str:
        """Copy the best checkpoint to where the host lists it; what to say of it."""
        if not (files := watch.files()):
            return ""
        best, places = watch.best, []
        for kind, file in files.items():
            title = f"{self.folder.name}_best_at_{best.step}"
            name = f"{title if kind == LORA else one_word(title)}.safetensors"
            places.append(copied(file, _host_folder(kind) / name).name)
        return f"Best by style: step {best.step} ({best.style:.3f}), {', '.join(places)}"

    def export(self, learned: Learned, steps: int) -> dict[str, Path]:
        """Save what was learned where the host lists it; a run that was stopped says so."""
        title = export_title(self.folder.name, steps, self.settings.steps)
        places = {
            LORA: lora_folder() / f"{title}.safetensors",
            EMBEDDING: embedding_folder() / f"{one_word(title)}.safetensors",
        }
        return self._export(learned, steps, title, places)

    def _write(self, folder: Path, learned: Learned, steps: int) -> dict[str, Path]:
        """A checkpoint into a folder of its own; one that is there was of another attempt."""
        places = {kind: folder / f"{kind}.safetensors" for kind in (LORA, EMBEDDING)}
        for path in places.values():
            path.unlink(missing_ok=True)
        return self._export(learned, steps, self.folder.name, places)

    def _export(
        self, learned: Learned, steps: int, title: str, places: Mapping[str, Path]
    ) -> dict[str, Path]:
        config = run_config(self.settings, self.denoiser, self.style_set, self.start)
        config["versions"] |= {"comfyui": comfyui_version.__version__}
        return export_learned(learned, places, self.names, config, steps, title)


def embedding_folder() -> Path:
    """Where trained embeddings go: a folder in which `embedding:name` finds them by itself."""
    return Path(folder_paths.get_folder_paths("embeddings")[0])


def _host_folder(kind: str) -> Path:
    return lora_folder() if kind == LORA else embedding_folder()


def _listed(kind: str, file: Path) -> Path:
    """Where the host lists a file of the run, copied there from where the host does not look.

    The command line may have saved it elsewhere, or the output folder have had another place.
    """
    folder = _host_folder(kind)
    if file.parent.resolve() == folder.resolve():
        return folder / file.name
    return copied(file, folder / file.name)


def _start(
    start_from: str,
    settings: TrainSettings,
    denoiser: HostDenoiser,
    sockets: tuple[ModelPatcher, CLIP, VAE],
) -> dict[str, LowRank] | None:
    if start_from == NOTHING:
        return None
    if not settings.trains_lora:
        raise InputError("start_from", f"'{NOTHING}', since no LoRA is trained", repr(start_from))
    file = read_lora(Path(folder_paths.get_full_path_or_raise("loras", start_from)))
    model, clip, _ = sockets
    fused = fused_spellings(model, clip)
    layers = every_layer(denoiser, settings.text_encoders)
    return match_layers(file, lora_spellings(model, clip), layers, fused)
