"""The inputs of the two trainers of the second method, in the order that workflows rely on."""

from comfy_api.latest import io

from ...nsync.runs.recipe import ANEW, CONTINUE
from ...nsync.supcon.contrast import CONTRASTS
from ...nsync.supcon.pretrain_settings import PretrainSettings
from ..sockets import StyleSetSocket
from .encoders import first_options

_USUAL = PretrainSettings()


def pretrainer_inputs() -> list[io.Input]:
    """All of SupCon Pretrainer's; new ones are appended."""
    return [
        *_main_inputs(),
        *contrast_inputs(),
        *_advanced_inputs(),
        *run_inputs(_USUAL.save_every),
        io.Float.Input(
            "words",
            default=_USUAL.words,
            min=0.0,
            max=100.0,
            step=0.01,
            advanced=True,
            tooltip="Weight of matching words with regions of pictures, beside texts with pictures "
            "as wholes. 1 for AttnGAN and DM-GAN, which look at words; 0 leaves it out.",
        ),
    ]


def _main_inputs() -> list[io.Input]:
    return [
        StyleSetSocket.Input(
            "style_set",
            tooltip="Pictures with captions and labels, of at least two labels. A caption should "
            "say what makes the label, so that a prompt can ask for it.",
        ),
        io.Combo.Input(
            "encoders",
            options=first_options(),
            tooltip="small: trained from nothing in minutes, for simple pictures. Or a CLIP with "
            "its text tower, for real ones: a folder in models/clip_vision with its config.json, "
            "safetensors and tokenizer, as downloaded from, say, openai/clip-vit-base-patch32. "
            "CLIP itself stays as it is; a projection on each side is trained.",
        ),
        steps_input(_USUAL.steps, "Updates of the encoders."),
        io.Int.Input(
            "batch",
            default=_USUAL.batch,
            min=2,
            max=1024,
            tooltip="Pairs per branch and step. There are two branches; the second has for each "
            "pair of the first another one of its label.",
        ),
        rate_input("learning_rate", _USUAL.learning_rate, "How far each step goes."),
        seed_input(),
        name_input("supcon_encoders"),
        io.Int.Input(
            "image_size",
            default=64,
            min=8,
            max=1024,
            step=8,
            tooltip="Side of the pictures that the small encoders look at. CLIP has its own.",
        ),
        io.Int.Input(
            "width",
            default=128,
            min=32,
            max=4096,
            step=32,
            tooltip="Numbers per feature, of pictures and of texts. With CLIP's own width (512 for "
            "ViT-B/32) its projections begin as they are.",
        ),
    ]


def _advanced_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "matching",
            default=_USUAL.matching,
            min=0.0,
            max=100.0,
            step=0.01,
            advanced=True,
            tooltip="Weight of telling, within a branch, which text is of which picture.",
        ),
        weight_input("image_image", _USUAL.image_image, "pictures of one label together"),
        weight_input("text_text", _USUAL.text_text, "texts of one label together"),
        weight_input("image_text", _USUAL.image_text, "pictures to the texts of their label"),
        weight_input("text_image", _USUAL.text_image, "texts to the pictures of their label"),
        io.Boolean.Input(
            "class_mask",
            default=_USUAL.class_mask,
            advanced=True,
            tooltip="Leave pairs that share a label out of the wrong answers when pictures and "
            "texts are matched. Then what labels do not say is hardly learned: only for labels "
            "that say as much as the captions do.",
        ),
        temperature_input("temperature", _USUAL.temperature, "matching"),
        temperature_input("contrast_temperature", _USUAL.contrast_temperature, "the contrast"),
        warmup_input(_USUAL.warmup),
        io.Int.Input(
            "validation",
            default=_USUAL.validation,
            min=0,
            max=100_000,
            tooltip="Pairs to hold out of training. Among them it is measured how often a text "
            "finds its own picture (R-precision). 0 holds none out, and measures nothing.",
        ),
        io.Int.Input(
            "validate_every",
            default=_USUAL.validate_every,
            min=1,
            max=1_000_000,
            advanced=True,
            tooltip="Steps between two measurements of the held-out pairs.",
        ),
    ]


def contrast_inputs() -> list[io.Input]:
    """What labels are used for; both trainers have it."""
    return [
        io.Combo.Input(
            "contrast",
            options=list(CONTRASTS),
            tooltip="What labels are used for. supcon: what shares a label is pulled together, "
            "across pictures and texts and within each. none: labels are not used. classifier, "
            "unicl, nt-xent: what the paper compares with. The help page explains all.",
        )
    ]


def run_inputs(save_every: int) -> list[io.Input]:
    """How a run is kept and gone on with; both trainers have it."""
    return [
        io.Int.Input(
            "save_every",
            default=save_every,
            min=0,
            max=1_000_000,
            advanced=True,
            tooltip="Steps between two states on disk, from which a run goes on after a crash. 0 "
            "saves one only when the run stops.",
        ),
        io.Int.Input(
            "pause_every",
            default=0,
            min=0,
            max=1_000_000,
            advanced=True,
            tooltip="Stop after every so many steps and give out what was learned; run the graph "
            "again to go on. 0 never pauses.",
        ),
        io.Combo.Input(
            "if_run_exists",
            options=[CONTINUE, ANEW],
            tooltip="What to do with a run of this name: continue it where it stopped (it must "
            "have been asked for the same), or start anew under a numbered name.",
        ),
    ]


def steps_input(default: int, tooltip: str) -> io.Input:
    """How long a run is."""
    return io.Int.Input("steps", default=default, min=1, max=10_000_000, tooltip=tooltip)


def seed_input() -> io.Input:
    """What everything random is derived from."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=False,
        tooltip="Everything random in the run comes from this: the same seed, the same result.",
    )


def name_input(default: str) -> io.Input:
    """What a run is called."""
    return io.String.Input(
        "name",
        default=default,
        tooltip="Name of the saved file and of the run's folder in output/nsync/runs. Under the "
        "same name a run that was stopped goes on; nothing is overwritten.",
    )


def rate_input(name: str, default: float, tooltip: str, *, advanced: bool = False) -> io.Input:
    """A learning rate."""
    return io.Float.Input(
        name,
        default=default,
        min=1e-7,
        max=1.0,
        step=1e-7,
        round=False,
        advanced=advanced,
        tooltip=tooltip,
    )


def weight_input(name: str, default: float, what: str) -> io.Input:
    """The weight of a term of the contrast."""
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=100.0,
        step=0.01,
        advanced=True,
        tooltip=f"Weight of pulling {what}. The other contrasts have the sum of all of them.",
    )


def temperature_input(name: str, default: float, of: str) -> io.Input:
    """Of a loss."""
    return io.Float.Input(
        name,
        default=default,
        min=0.01,
        max=10.0,
        step=0.01,
        advanced=True,
        tooltip=f"Of {of}: lower looks more at the nearest neighbours, and pulls harder.",
    )


def warmup_input(default: int) -> io.Input:
    """Of the learning rates."""
    return io.Int.Input(
        "warmup",
        default=default,
        min=0,
        max=1_000_000,
        advanced=True,
        tooltip="Steps over which the learning rate rises to its full height.",
    )
