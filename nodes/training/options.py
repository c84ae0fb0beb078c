"""The Training Options node: what most runs leave alone."""

from comfy_api.latest import io

from ...nsync.optimizers import OPTIMIZERS
from ...nsync.settings import BRANCH_FORMS, TIMES, TrainSettings
from ..sockets import TrainingOptionsSocket

_DEFAULT = TrainSettings()


class TrainingOptions(io.ComfyNode):
    """`NSYNC_TrainingOptions`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_TrainingOptions",
            display_name="Training Options",
            category="NSYNC",
            description="More settings for the Contrastive LoRA Trainer: embedding, optimizer, "
            "noise levels, memory and speed, validation, states to resume from. Without this node "
            "the trainer takes the defaults shown here.",
            search_aliases=["optimizer", "ema", "min snr", "checkpointing", "adamw", "prodigy"],
            inputs=[
                *_embedding_inputs(),
                *_optimizer_inputs(),
                *_noise_inputs(),
                *_memory_inputs(),
                *_safety_inputs(),
            ],
            outputs=[
                TrainingOptionsSocket.Output(
                    display_name="options", tooltip="For the trainer's input of the same name."
                )
            ],
        )

    @classmethod
    def execute(cls, **options: str | int | float | bool) -> io.NodeOutput:
        return io.NodeOutput(options)


def _embedding_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "initial_word",
            default=_DEFAULT.initial_word,
            tooltip="The word whose vectors an embedding starts from: painting, illustration, "
            "animation.",
        ),
        _int("vectors", 0, 64, "Vectors of the embedding: more hold more, and take up as many "
             "tokens of every prompt. 0 takes as many as the initial word has tokens."),
        _float("embedding_rate", 1e-7, 10.0, 1e-7, "Learning rate of the embedding."),
        io.Boolean.Input(
            "text_encoders",
            default=_DEFAULT.text_encoders,
            tooltip="Put the LoRA into the text encoders as well. Prompts are then encoded anew in "
            "every step.",
        ),
    ]  # fmt: skip


def _optimizer_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "optimizer",
            options=list(OPTIMIZERS),
            tooltip="adamw suits most. prodigy finds its own rate: set the learning rates to 1. "
            "lion wants about a tenth of adamw's rate. schedule-free adamw goes with the schedule "
            "'constant'. adamw-8bit is listed where bitsandbytes is installed.",
        ),
        _float("weight_decay", 0.0, 10.0, 0.001, "Pulls the LoRA's weights towards zero."),
        _float("ema", 0.0, 0.9999, 0.0001, "Save the moving average of the weights, with this "
               "decay (0.99 for some hundred steps); 0 saves the last weights."),
        _int("accumulate", 1, 1024, "Passes per step: a batch so many times as large, in the same "
             "memory."),
    ]  # fmt: skip


def _noise_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "times",
            options=list(TIMES),
            tooltip="How noise levels are drawn: uniform; logit-normal, towards the middle; early, "
            "towards little noise, where strokes and textures are decided.",
        ),
        _float("min_snr", 0.0, 100.0, 0.1, "Gamma of min-SNR weighting: levels with little noise "
               "count no more than this. 5 is usual; 0 weighs all alike."),
        _float("caption_dropout", 0.0, 0.99, 0.01, "Share of the pictures trained without words."),
        _float("noise_offset", 0.0, 1.0, 0.01, "Adds a constant per channel to the noise, for very "
               "dark or bright styles. 0 for models trained without, which is most."),
    ]  # fmt: skip


def _memory_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "branches",
            options=list(BRANCH_FORMS),
            tooltip="fused: positives, negatives and anchors in one pass, the fastest; sequential: "
            "one after the other, in less memory; auto decides by the memory that is free.",
        ),
        io.Boolean.Input(
            "checkpointing",
            default=_DEFAULT.checkpointing,
            tooltip="Much less memory for about a third more time; the same result.",
        ),
        io.Boolean.Input(
            "compile",
            default=_DEFAULT.compile,
            tooltip="Compile the model with torch.compile: half a minute or more at the start. For "
            "long runs on a GPU; slower on a CPU. Needs a C++ compiler.",
        ),
        _int("log_every", 1, 1000, "Steps between two readings of the losses from the GPU."),
    ]


def _safety_inputs() -> list[io.Input]:
    return [
        _int("validation", 0, 1000, "Pictures held out of training, to log a loss that can be "
             "compared between steps."),
        _int("validate_every", 1, 1_000_000, "Steps between two validation losses."),
        _int("save_every", 0, 1_000_000, "Steps between two states from which the run can go on "
             "after a crash. 0 saves one only when it stops."),
        _int("keep_last", 1, 1000, "How many of these states are kept."),
    ]  # fmt: skip


def _int(name: str, least: int, most: int, tooltip: str) -> io.Input:
    default = getattr(_DEFAULT, name)
    return io.Int.Input(name, default=default, min=least, max=most, tooltip=tooltip)


def _float(name: str, least: float, most: float, step: float, tooltip: str) -> io.Input:
    return io.Float.Input(
        name,
        default=getattr(_DEFAULT, name),
        min=least,
        max=most,
        step=step,
        round=False,
        tooltip=tooltip,
    )
