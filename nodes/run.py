"""One training run as the host sees it: where its files go, what is checked, what is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfyui_version
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ..nsync.adapters import select_layers
from ..nsync.batches import check_set
from ..nsync.checkpoint import check_names, check_room, export_lora, lora_tensors, metadata
from ..nsync.denoiser import SamplerSettings
from ..nsync.files import numbered
from ..nsync.settings import TrainSettings
from ..nsync.style_set import StyleSet
from ..nsync.training import TrainResult, Weights, run_config, train
from .host import HostDenoiser
from .lora import lora_folder, lora_names
from .names import check_name
from .progress import Previews, TrainingProgress
from .style_set import on_picture

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingRun:
    """A run on the host's objects, under the first free name.

    Attributes:
        folder: `<output>/nsync/runs/<name>`: configuration, log and samples.
        names: how the LoRA file calls the model's layers.
    """

    denoiser: HostDenoiser
    style_set: StyleSet
    settings: TrainSettings
    folder: Path
    names: Mapping[str, str]

    @classmethod
    def prepare(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        style_set: StyleSet,
        settings: TrainSettings,
        name: str,
    ) -> "TrainingRun":
        """Judge what the host knows, before any work.

        Raises:
            InputError: a bad name or setting, an unfit set, layers without a name, a full disk.
        """
        settings.check()
        folder = numbered(runs_folder() / check_name(name))
        denoiser, names = HostDenoiser(model, clip, vae), lora_names(model)
        check_set(settings, denoiser, style_set)
        layers = select_layers(denoiser.network, settings.layers)
        check_names(layers, names)
        check_room(lora_folder(), layers, settings.rank)
        return cls(denoiser, style_set, settings, folder, names)

    def train(self, progress: TrainingProgress, previews: Previews) -> TrainResult:
        """Train, showing every step; the LoRA is saved at the end, or when the run is stopped."""
        return train(
            self.settings,
            self.denoiser,
            self.style_set,
            self.folder,
            self.export,
            on_step=progress.on_step,
            on_item=on_picture(),
            preview=previews,
            ready=partial(self.denoiser.trainable, _DTYPES[self.settings.precision]),
        )

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

    def tensors(self, weights: Weights) -> dict[str, Tensor]:
        """Trained weights as the tensors of a LoRA file."""
        return lora_tensors(weights, self.names, self.settings.alpha)

    def export(self, weights: Weights, steps: int) -> Path:
        """Save the LoRA where Load LoRA lists it; a run that was stopped says so in the name."""
        whole = steps == self.settings.steps
        title = self.folder.name if whole else f"{self.folder.name}_stopped_at_{steps}"
        config = run_config(self.settings, self.denoiser, self.style_set)
        config["versions"] |= {"comfyui": comfyui_version.__version__}
        told = metadata(config, steps, title)
        return export_lora(lora_folder() / f"{title}.safetensors", self.tensors(weights), told)


def runs_folder() -> Path:
    """Where the runs' folders are."""
    return Path(folder_paths.get_output_directory()) / "nsync" / "runs"
