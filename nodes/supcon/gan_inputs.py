"""The inputs of SupCon GAN Trainer, in the order that workflows rely on."""

from comfy_api.latest import io

from ...nsync.supcon.gan import FAMILIES
from ...nsync.supcon.gan.adversarial import ADVERSARIAL
from ...nsync.supcon.gan.choices import AS_SET, PUBLISHED
from ...nsync.supcon.gan.settings import AUGMENTATIONS, GanSettings
from ..sockets import StyleSetSocket, SupConEncodersSocket
from .inputs import (
    contrast_inputs,
    name_input,
    rate_input,
    run_inputs,
    seed_input,
    steps_input,
    temperature_input,
    warmup_input,
    weight_input,
)

_USUAL = GanSettings()


def gan_inputs() -> list[io.Input]:
    """All of them; new ones are appended."""
    return [
        *_main_inputs(),
        *_networks_inputs(),
        *_contrast_inputs(),
        *_loss_inputs(),
        *_rates_inputs(),
        *_preview_inputs(),
        *run_inputs(_USUAL.save_every),
        _number("word_match_weight", _USUAL.word_match_weight, 100.0, "Weight of the text match by "
        "words and regions, as SSA-GAN (0.1), AttnGAN and DM-GAN (10) were published with; 0 has "
        "none."),
    ]  # fmt: skip


def _main_inputs() -> list[io.Input]:
    return [
        StyleSetSocket.Input(
            "style_set",
            tooltip="Pictures with captions and labels, of at least two labels: best the set that "
            "the encoders were trained with.",
        ),
        SupConEncodersSocket.Input(
            "encoders",
            tooltip="From SupCon Pretrainer or Load SupCon Encoders. They are not changed. GALIP "
            "needs CLIP ones.",
        ),
        io.Combo.Input(
            "family",
            options=list(FAMILIES),
            tooltip="The networks, as in the papers of these names. SSA-GAN follows prompts "
            "soonest; GALIP looks and thinks with a frozen CLIP. The help page tells of each.",
        ),
        io.Int.Input(
            "image_size",
            default=64,
            min=8,
            max=1024,
            step=8,
            tooltip="Side of the pictures, which are scaled and cropped to it. A power of two, but "
            "for GALIP.",
        ),
        steps_input(_USUAL.steps, "Updates of the generator, and of the discriminator."),
        io.Int.Input(
            "batch",
            default=_USUAL.batch,
            min=2,
            max=1024,
            tooltip="Pairs per branch and step. There are two branches; the second has for each "
            "pair of the first another one of its label.",
        ),
        seed_input(),
        name_input("supcon_gan"),
    ]


def _networks_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "width",
            default=32,
            min=1,
            max=512,
            tooltip="Channels that all others of the networks are multiples of. The published "
            "networks of 256 pixels have 64 (AttnGAN 32); 16 to 32 suit 64 pixels.",
        ),
        io.Combo.Input(
            "preset",
            options=[AS_SET, PUBLISHED],
            tooltip="published: batch, learning rates, betas, warm-up, average, augmentation, "
            "adversarial loss, penalties, and the weights of divergence and of both text matches "
            "as the family's paper or code has them; they replace what is set here.",
        ),
    ]


def _contrast_inputs() -> list[io.Input]:
    return [
        *contrast_inputs(),
        weight_input("image_image", _USUAL.image_image, "painted pictures of one label together"),
        weight_input("image_text", _USUAL.image_text, "painted pictures to texts of their label"),
        weight_input("text_image", _USUAL.text_image, "texts to painted pictures of their label"),
        temperature_input("temperature", _USUAL.temperature, "the contrast"),
        io.Boolean.Input(
            "contrast_real",
            default=_USUAL.contrast_real,
            advanced=True,
            tooltip="In 'supcon' and 'unicl': real pictures stand beside the painted ones.",
        ),
    ]


def _loss_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "adversarial",
            options=list(ADVERSARIAL),
            default=_USUAL.adversarial,
            advanced=True,
            tooltip="How the discriminator's verdict becomes a loss: hinge, as SSA-GAN and GALIP "
            "have it, or cross-entropy, as AttnGAN and DM-GAN.",
        ),
        _number("match_weight", _USUAL.match_weight, 100.0, "Weight of the text match: that the "
        "encoders find a painted picture's text among others."),
        io.Boolean.Input(
            "class_mask",
            default=_USUAL.class_mask,
            advanced=True,
            tooltip="Pairs that share a label are no wrong answers for each other, neither for the "
            "discriminator nor in the text match. Then what labels do not say is hardly learned: "
            "only for labels that say as much as the captions do.",
        ),
        _number("divergence_weight", _USUAL.divergence_weight, 100.0, "Weight of keeping what "
        "AttnGAN and DM-GAN draw from the text near to plain noise; other families draw nothing."),
        _number("penalty_weight", _USUAL.penalty_weight, 100.0, "Weight of the gradient penalty on "
        "real pictures with their texts, which keeps the discriminator smooth; 0 leaves it out. It "
        "has to be 0 for AttnGAN."),
        _number("r1_gamma", _USUAL.r1_gamma, 1000.0, "Weight of the R1 penalty on real pictures "
        "alone; 0 leaves it out. For small sets on which training falls apart. It has to be 0 for "
        "AttnGAN."),
        io.Int.Input(
            "penalty_every",
            default=_USUAL.penalty_every,
            min=1,
            max=1000,
            advanced=True,
            tooltip="Steps between two penalties, which then weigh so many times more. Saves time.",
        ),
        io.Combo.Input(
            "augmentation",
            options=list(AUGMENTATIONS),
            default=_USUAL.augmentation,
            tooltip="How pictures are changed before the discriminator sees them, real and painted "
            "ones alike, so that it cannot learn a small set by heart.",
        ),
        _share("ema", _USUAL.ema, "Decay of the average of the generator over the steps, which is "
        "what is saved; 0.999 remembers about a thousand steps."),
    ]  # fmt: skip


def _rates_inputs() -> list[io.Input]:
    return [
        rate_input("generator_rate", _USUAL.generator_rate, "Learning rate of the generator."),
        rate_input(
            "discriminator_rate", _USUAL.discriminator_rate, "Learning rate of the discriminator."
        ),
        _share("beta1", _USUAL.beta1, "Of both Adams: how long gradients are remembered."),
        _share("beta2", _USUAL.beta2, "Of both Adams: how long their squares are remembered."),
        warmup_input(_USUAL.warmup),
    ]


def _preview_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "preview_every",
            default=_USUAL.preview_every,
            min=0,
            max=1_000_000,
            tooltip="Paint a sheet of pictures at the start, every so many steps and at the end; 0 "
            "paints none.",
        ),
        io.String.Input(
            "preview_prompts",
            default="",
            multiline=True,
            tooltip="What is on the sheet, a prompt a line; empty takes captions of the set, of "
            "each label in turn.",
        ),
    ]


def _number(name: str, default: float, most: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=most, step=0.01, advanced=True, tooltip=tooltip
    )


def _share(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=default, min=0.0, max=0.99999, step=0.00001, round=False, advanced=True,
        tooltip=tooltip,
    )  # fmt: skip
