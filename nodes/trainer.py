"""The Contrastive LoRA Trainer node: the model on the socket learns a style, as a LoRA."""

from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io

from ..nsync.adapters import LAYER_CHOICES
from ..nsync.denoiser import SamplerSettings
from ..nsync.rules import RULES
from ..nsync.settings import PRECISIONS, SCHEDULES, SCOPES, TrainSettings
from ..nsync.style_set import StyleSet
from .lora import apply_lora, lora_folder
from .progress import TrainingProgress
from .run import TrainingRun
from .sockets import StyleSetSocket

LoraModelSocket = io.Custom("LORA_MODEL")  # the core's own types, so that its nodes read them
LossMapSocket = io.Custom("LOSS_MAP")


class ContrastiveLoRATrainer(io.ComfyNode):
    """`NSYNC_ContrastiveLoRATrainer`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_ContrastiveLoRATrainer",
            display_name="Contrastive LoRA Trainer",
            category="NSYNC",
            description="Teaches the model a style from the pictures of a style set, and keeps out "
            "of it what the set's negatives have in common with them. The LoRA is saved where Load "
            "LoRA lists it.",
            search_aliases=["train lora", "style lora", "nsync", "fine-tune", "finetune"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[*_main_inputs(), *_advanced_inputs(), *_preview_inputs()],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA applied."),
                LoraModelSocket.Output(display_name="lora", tooltip="For Save or Load LoRA Model."),
                LossMapSocket.Output(display_name="loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(
                    display_name="lora_name", tooltip="The saved file, as Load LoRA lists it."
                ),
            ],
        )

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
        **settings: str | int | float | bool,
    ) -> io.NodeOutput:
        wanted = TrainSettings(**settings)
        sampler = SamplerSettings(preview_steps, preview_guidance, "euler", "simple")
        with torch.inference_mode(False), torch.enable_grad():
            run = TrainingRun.prepare(model, clip, vae, style_set, wanted, name)
            progress = TrainingProgress(wanted.steps, cls.hidden.unique_id)
            previews = run.previews_of(preview_prompt, sampler, progress)
            result = run.train(progress, previews)
            tensors = run.tensors(result.weights)
        return io.NodeOutput(
            apply_lora(model, tensors),
            tensors,
            {"loss": result.losses},
            str(result.file.relative_to(lora_folder())),
            ui=_shown(result.file, previews.latest),
        )


def _shown(lora: Path, picture: Path | None) -> dict[str, list]:
    """What stays on the node after the run: the saved file's path and the last preview."""
    output = Path(folder_paths.get_output_directory())
    shown: dict[str, list] = {"text": [f"Saved {lora.relative_to(output)}"]}
    if picture is not None:
        folder = str(picture.parent.relative_to(output))
        shown["images"] = [{"filename": picture.name, "subfolder": folder, "type": "output"}]
    return shown


def _main_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The model to teach. It is not changed itself."),
        io.Clip.Input("clip", tooltip="Its text encoder: reads the captions."),
        io.Vae.Input("vae", tooltip="Its VAE: turns the pictures into latents."),
        StyleSetSocket.Input(
            "style_set",
            tooltip="Pictures of the style with captions; with negatives, painted by the same "
            "model, for every rule but 'plain'.",
        ),
        io.Combo.Input(
            "rule",
            options=list(RULES),
            tooltip="What is done with the negatives. nsync: remove what positives and negatives "
            "share, strengthen what positives share. plain: ordinary LoRA training. The help page "
            "explains all.",
        ),
        io.Int.Input(
            "steps", default=500, min=1, max=1_000_000, tooltip="Updates of the LoRA's weights."
        ),
        io.Float.Input(
            "learning_rate",
            default=1e-4,
            min=1e-7,
            max=1.0,
            step=1e-7,
            round=False,
            tooltip="How far each step goes. Too high eats the content of pictures, too low "
            "learns nothing; 1e-4 suits most models.",
        ),
        io.Int.Input(
            "batch",
            default=2,
            min=1,
            max=1024,
            tooltip="Pictures per branch and step. A rule has up to three branches: positives, "
            "negatives, anchors.",
        ),
        io.Int.Input(
            "rank",
            default=16,
            min=1,
            max=1024,
            tooltip="Size of the LoRA: more can hold more detail, and more that is not the style.",
        ),
        io.Float.Input(
            "alpha",
            default=16.0,
            min=0.01,
            max=1024.0,
            step=0.01,
            tooltip="The LoRA is scaled by alpha / rank. Leave it equal to the rank if unsure.",
        ),
        io.Combo.Input(
            "layers",
            options=list(LAYER_CHOICES),
            tooltip="Which layers of the model get a LoRA. Attention is enough for most styles.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Everything random in the run comes from this: the same seed, the same LoRA.",
        ),
        io.String.Input(
            "name",
            default="nsync_style",
            tooltip="Name of the LoRA file in output/loras and of the run's folder in "
            "output/nsync/runs. A name that exists gets a number; nothing is overwritten.",
        ),
    ]


def _advanced_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "scope",
            options=list(SCOPES),
            advanced=True,
            tooltip="Compare the gradients over all weights together (global), or each weight "
            "tensor by itself.",
        ),
        io.Float.Input(
            "weight",
            default=0.5,
            min=0.0,
            max=10.0,
            step=0.01,
            advanced=True,
            tooltip="Strength of the push away from the negatives in the rule 'contrast'; other "
            "rules do not use it.",
        ),
        io.Boolean.Input(
            "shared_noise",
            default=False,
            advanced=True,
            tooltip="Give each negative the noise and the time of its positive, so that their "
            "gradients can be compared more closely.",
        ),
        io.Int.Input(
            "warmup",
            default=20,
            min=0,
            max=1_000_000,
            advanced=True,
            tooltip="Steps over which the learning rate rises to its full height.",
        ),
        io.Combo.Input(
            "schedule",
            options=list(SCHEDULES),
            advanced=True,
            tooltip="The learning rate after the warm-up: constant, or falling to zero on a "
            "cosine.",
        ),
        io.Float.Input(
            "clip_norm",
            default=1.0,
            min=0.0,
            max=1000.0,
            step=0.01,
            advanced=True,
            tooltip="The update is shortened to this length if it is longer; 0 never shortens.",
        ),
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            advanced=True,
            tooltip="Arithmetic of the model while training. bf16 is faster and needs less memory "
            "on recent GPUs; the LoRA's own weights stay fp32.",
        ),
    ]


def _preview_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "preview_every",
            default=100,
            min=0,
            max=1_000_000,
            tooltip="Draw a picture from the model in training at the start, every so many steps "
            "and at the end; 0 draws none.",
        ),
        io.String.Input(
            "preview_prompt",
            default="",
            tooltip="Prompt of the preview; empty takes that of the first picture of the set.",
        ),
        io.Int.Input(
            "preview_steps",
            default=20,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Sampling steps of the preview.",
        ),
        io.Float.Input(
            "preview_guidance",
            default=5.0,
            min=0.0,
            max=100.0,
            step=0.1,
            advanced=True,
            tooltip="Guidance (CFG) of the preview. Take the model's usual value; 1 for Flux.",
        ),
    ]
