"""The Contrastive LoRA Trainer node: the model on the socket learns a style, as a LoRA."""

from collections.abc import Mapping
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io
from safetensors.torch import load_file

from ..nsync.denoiser import SamplerSettings
from ..nsync.presets import AS_SET, filled_in
from ..nsync.run_folder import RunFolder
from ..nsync.settings import TrainSettings
from ..nsync.style_set import StyleSet
from ..nsync.trained import EMBEDDING, LORA
from ..nsync.training import TrainResult
from .folders import run_folder
from .lora import apply_lora, lora_folder
from .progress import TrainingProgress
from .run import CONTINUE, NOTHING, TrainingRun, embedding_folder
from .sockets import LoraModelSocket, LossMapSocket
from .style_watch import WatchRequest
from .trainer_inputs import trainer_inputs


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
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA applied."),
                LoraModelSocket.Output(display_name="lora", tooltip="For Save or Load LoRA Model."),
                LossMapSocket.Output(display_name="loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(
                    display_name="lora_name", tooltip="The saved file, as Load LoRA lists it."
                ),
                io.Clip.Output(
                    display_name="clip", tooltip="The text encoders with the LoRA applied."
                ),
                io.String.Output(
                    display_name="embedding_word",
                    tooltip="What calls the trained embedding in a prompt: embedding:name.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, name: str, **_: object) -> str:
        """A run that was paused or stopped goes on when the graph is run again."""
        return RunFolder(run_folder(name)).pending()

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
        **settings: str | int | float | bool,
    ) -> io.NodeOutput:
        every = {"score_every": watch.every} if watch else {}
        wanted = filled_in(TrainSettings(**settings, **(options or {}), **every), preset)
        sampler = SamplerSettings(preview_steps, preview_guidance, "euler", "simple")
        sockets = model, clip, vae
        with torch.inference_mode(False), torch.enable_grad():
            run = TrainingRun.prepare(sockets, style_set, wanted, name, start_from, if_run_exists)
            progress = TrainingProgress(wanted.steps, cls.hidden.unique_id)
            previews = run.previews_of(preview_prompt, sampler, progress)
            watched = run.watch_of(watch, sampler, progress) if watch else None
            result = run.train(progress, previews, watched)
            best = run.export_best(watched) if watched else ""
            lora, embedding = result.files.get(LORA), result.files.get(EMBEDDING)
            tensors = load_file(lora) if lora else {}
        trained = apply_lora(model, clip, tensors) if lora else (model, clip)
        return io.NodeOutput(
            trained[0],
            tensors,
            {"loss": result.losses},
            str(lora.relative_to(lora_folder())) if lora else "",
            trained[1],
            f"embedding:{embedding.stem}" if embedding else "",
            ui=_shown(run, result, [previews.latest, watched and watched.curve], best),
        )


def _shown(
    run: TrainingRun, result: TrainResult, pictures: list[Path | None], best: str
) -> dict[str, list]:
    """What stays on the node after the run: the saved files, the last preview, the curve."""
    output = Path(folder_paths.get_output_directory())
    files = result.files.values()
    shown: dict[str, list] = {"text": [f"Saved {_place(file, output)}" for file in files]}
    if result.step < run.settings.steps:
        told = f"after {result.step} of {run.settings.steps} steps"
        over = f"Ended {told}: the style came no nearer"
        shown["text"].append(over if result.over else f"Paused {told}: run again")
    if best:
        shown["text"].append(best)
    places = [(one.parent.relative_to(output), one.name) for one in pictures if one]
    if places:
        shown["images"] = [
            {"filename": name, "subfolder": str(folder), "type": "output"}
            for folder, name in places
        ]
    return shown


def _place(file: Path, output: Path) -> Path:
    if file.is_relative_to(output):
        return file.relative_to(output)
    return Path("embeddings") / file.relative_to(embedding_folder())
