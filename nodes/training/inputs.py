"""The inputs of the Contrastive LoRA Trainer node, in the order that workflows rely on."""

import folder_paths
from comfy_api.latest import io

from ...nsync.layers import LAYER_CHOICES
from ...nsync.optimizers import SCHEDULES
from ...nsync.presets import PRESETS
from ...nsync.rules import RULES
from ...nsync.runs.recipe import ANEW, CONTINUE
from ...nsync.runs.several import LABELS
from ...nsync.settings import NEGATIVES_FROM, PRECISIONS, SCOPES, TRAINS
from ..sockets import StyleSetSocket, StyleWatchSocket, TrainingOptionsSocket
from .run import NOTHING


def trainer_inputs() -> list[io.Input]:
    """All of them; new ones are appended."""
    return [
        *_main_inputs(),
        *_advanced_inputs(),
        *_preview_inputs(),
        *_run_inputs(),
        *_label_inputs(),
    ]


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
            "share, strengthen what positives share. released-4.1: push away from the negatives, "
            "for a style that was not caught. plain: ordinary LoRA training. The help page "
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
            tooltip="How far each step goes, for the LoRA. Too high eats the content of pictures, "
            "too low learns nothing; 1e-4 suits most models.",
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
            tooltip="Name of the saved file and of the run's folder in output/nsync/runs. Under "
            "the same name a run that was stopped goes on; nothing is overwritten.",
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
            tooltip="The learning rate after the warm-up: constant, or falling to zero in a line "
            "or on a cosine.",
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


def _run_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "trains",
            options=list(TRAINS),
            optional=True,
            tooltip="A LoRA, or an embedding (textual inversion): vectors that the text encoder "
            "reads in the place of the style token, called by embedding:name in a prompt.",
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            optional=True,
            tooltip="Settings for a card's memory, or those of the paper; they replace what is set "
            "here and in Training Options. The help page lists them. SDXL wants one: as set by "
            "default it takes 81 GB.",
        ),
        io.Combo.Input(
            "start_from",
            options=[NOTHING, *folder_paths.get_filename_list("loras")],
            optional=True,
            tooltip="A LoRA to train further, of any naming. Its own layers, ranks and alphas then "
            "count instead of those set here.",
        ),
        io.Combo.Input(
            "if_run_exists",
            options=[CONTINUE, ANEW],
            optional=True,
            tooltip="What to do with a run of this name: continue it where it stopped (it must "
            "have been asked for the same), or start anew under a numbered name.",
        ),
        io.Int.Input(
            "pause_every",
            default=0,
            min=0,
            max=1_000_000,
            optional=True,
            tooltip="Stop after every so many steps and give out what was learned, so that the "
            "graph can draw with it; run the graph again to go on. 0 never pauses.",
        ),
        TrainingOptionsSocket.Input(
            "options",
            optional=True,
            tooltip="From Training Options: optimizer, noise levels, memory, validation, states.",
        ),
        StyleWatchSocket.Input(
            "watch",
            optional=True,
            tooltip="From Style Watch: scores the style along the steps and keeps the best "
            "checkpoint.",
        ),
    ]


def _label_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "labels",
            options=list(LABELS),
            optional=True,
            tooltip="All pictures of the set as one style; or a run for every label, one after the "
            "other, each with a file of its own: <name>_<label>. The outputs are then lists.",
        ),
        io.Combo.Input(
            "negatives_from",
            options=list(NEGATIVES_FROM),
            optional=True,
            tooltip="Negatives painted by the Negative Set Generator; or the set's pictures of "
            "other labels, with one run per label; or both, either half the time.",
        ),
    ]
