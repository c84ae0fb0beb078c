"""The Contrastive LoRA Trainer node: the model on the socket learns a style, as a LoRA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io
from safetensors.torch import load_file
from torch import Tensor

from ...nsync.denoiser import SamplerSettings
from ...nsync.presets import AS_SET, filled_in
from ...nsync.runs.recipe import CONTINUE
from ...nsync.runs.several import ONE_STYLE, each, sets_of_runs
from ...nsync.settings import TrainSettings
from ...nsync.style_set import StyleSet
from ...nsync.trained import EMBEDDING, LORA
from ...nsync.training import TrainResult
from ..evaluation.watch import WatchRequest
from ..host.lora import apply_lora, lora_folder
from ..progress import TrainingProgress
from ..runs import check_pausing, pending_runs, run_problem, told_how_to_go_on
from ..shown import shown
from ..sockets import LoraModelSocket, LossMapSocket
from .inputs import trainer_inputs
from .run import NOTHING, TrainingRun, embedding_folder


class ContrastiveLoRATrainer(io.ComfyNode):
    """`NSYNC_ContrastiveLoRATrainer`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_ContrastiveLoRATrainer",
            display_name="Contrastive LoRA Trainer",
            category="NSYNC",
            description="Teaches the model a style from the pictures of a style set, and keeps out "
            "of it what the set's negatives have in common with them. A LoRA is saved where Load "
            "LoRA lists it, an embedding where `embedding:name` finds it. A run that was stopped "
            "goes on when the graph is run again.",
            search_aliases=[
                "train lora", "style lora", "nsync", "fine-tune", "finetune", "textual inversion",
                "train embedding", "resume training",
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=trainer_inputs(),
            outputs=_outputs(),
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls,
        name: str | None = None,
        if_run_exists: str | None = None,
        pause_every: int | None = None,
    ) -> bool | str:
        return run_problem(name, if_run_exists, pause_every)

    @classmethod
    def fingerprint_inputs(cls, name: str | None, labels: str = ONE_STYLE, **_: object) -> str:
        """A run that was paused or stopped goes on when the graph is run again."""
        return pending_runs(name, labels)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        style_set: StyleSet,
        name: str,
        preview_prompt: str,
        preview_steps: int,
        preview_guidance: float,
        preset: str = AS_SET,
        start_from: str = NOTHING,
        if_run_exists: str = CONTINUE,
        options: Mapping[str, object] | None = None,
        watch: WatchRequest | None = None,
        labels: str = ONE_STYLE,
        **settings: str | int | float | bool,
    ) -> io.NodeOutput:
        every = {"score_every": watch.every} if watch else {}
        wanted = filled_in(TrainSettings(**settings, **(options or {}), **every), preset)
        check_pausing(if_run_exists, wanted.pause_every)
        sampler = SamplerSettings(preview_steps, preview_guidance, "euler", "simple")
        sets = sets_of_runs(wanted, style_set, name, labels)
        with torch.inference_mode(False), torch.enable_grad():
            runs = TrainingRun.prepare((model, clip, vae), sets, wanted, start_from, if_run_exists)

            def make(run: TrainingRun, place: int) -> _Made:
                title, node = run.folder.name if len(runs) > 1 else "", cls.hidden.unique_id
                progress = TrainingProgress(
                    wanted.steps, node, run=place, runs=len(runs), title=title
                )
                # A label's run cannot be gone on with by its own name: its set is of all labels.
                kept = if_run_exists if labels == ONE_STYLE else CONTINUE
                with told_how_to_go_on(run.folder, kept, node):
                    return _make(run, progress, preview_prompt, sampler, watch)

            made, stopped = each(runs, make)
        if stopped:
            raise type(stopped[0])("\n".join(map(str, stopped))) from stopped[0]
        values = zip(*(one.outputs(model, clip) for one in made), strict=True)
        return io.NodeOutput(*map(list, values), ui=_shown(made, cls.hidden.unique_id))


def _outputs() -> list[io.Output]:
    """Lists, of one value each where there is one run: what follows is done for each."""
    each = {"is_output_list": True}
    return [
        io.Model.Output(display_name="model", tooltip="The model with the LoRA applied.", **each),
        LoraModelSocket.Output(display_name="lora", tooltip="For Save or Load LoRA Model.", **each),
        LossMapSocket.Output(display_name="loss_map", tooltip="For Plot Loss Graph.", **each),
        io.String.Output(
            display_name="lora_name", tooltip="The saved file, as Load LoRA lists it.", **each
        ),
        io.Clip.Output(
            display_name="clip", tooltip="The text encoders with the LoRA applied.", **each
        ),
        io.String.Output(
            display_name="embedding_word",
            tooltip="What calls the trained embedding in a prompt: embedding:name.",
            **each,
        ),
    ]


@dataclass(frozen=True)
class _Made:
    """What came of one run.

    Attributes:
        tensors: of the LoRA's file; nothing where none was trained.
        pictures: the last preview and the curve of the style, as far as they are there.
        best: what to say of the best checkpoint.
    """

    run: TrainingRun
    result: TrainResult
    tensors: dict[str, Tensor]
    pictures: list[Path | None]
    best: str

    def outputs(self, model: ModelPatcher, clip: CLIP) -> tuple[object, ...]:
        """A value for each of the node's outputs."""
        lora, embedding = self.result.files.get(LORA), self.result.files.get(EMBEDDING)
        trained = apply_lora(model, clip, self.tensors) if lora else (model, clip)
        return (
            trained[0],
            self.tensors,
            {"loss": self.result.losses},
            str(lora.relative_to(lora_folder())) if lora else "",
            trained[1],
            f"embedding:{embedding.stem}" if embedding else "",
        )

    def texts(self, title: str) -> list[str]:
        """What stays on the node to be read."""
        output, steps = Path(folder_paths.get_output_directory()), self.run.settings.steps
        texts = [f"Saved {_place(file, output)}" for file in self.result.files.values()]
        if self.result.step < steps:
            told = f"after {self.result.step} of {steps} steps"
            over = f"Ended {told}: the style came no nearer"
            texts.append(title + (over if self.result.over else f"Paused {told}: run again"))
        return [*texts, self.best] if self.best else texts


def _make(
    run: TrainingRun,
    progress: TrainingProgress,
    prompt: str,
    sampler: SamplerSettings,
    watch: WatchRequest | None,
) -> _Made:
    previews = run.previews_of(prompt, sampler, progress)
    watched = run.watch_of(watch, sampler, progress) if watch else None
    result = run.train(progress, previews, watched)
    best = run.export_best(watched) if watched else ""
    tensors = load_file(result.files[LORA]) if LORA in result.files else {}
    return _Made(run, result, tensors, [previews.latest, watched and watched.curve], best)


def _shown(made: Sequence[_Made], node_id: str | None) -> dict[str, list]:
    """What stays on the node after the runs: the saved files, the last previews, the curves."""
    several = len(made) > 1
    texts = [one.texts(f"{one.run.folder.name}: " if several else "") for one in made]
    pictures = [picture for one in made for picture in one.pictures if picture]
    return shown([text for each in texts for text in each], pictures, node_id=node_id)


def _place(file: Path, output: Path) -> Path:
    if file.is_relative_to(output):
        return file.relative_to(output)
    return Path("embeddings") / file.relative_to(embedding_folder())
