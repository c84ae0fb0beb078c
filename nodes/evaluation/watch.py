"""The Style Watch node: which scores a training shall take along its steps."""

from dataclasses import dataclass

from comfy_api.latest import io

from ...nsync.denoiser import SamplerSettings
from ...nsync.evaluation.drawing import Comparison
from ...nsync.style_set import StyleSet
from ..sockets import EncodersSocket, StyleWatchSocket
from .comparison import caption_lines
from .encoder import HostEncoder


@dataclass(frozen=True)
class WatchRequest:
    """What the user asked for.

    Attributes:
        captions: held-out contents, without a word about the style.
        every: steps between two scores.
        patience: scores without a higher style after which training ends; 0 never.
        seed: of the first picture of each caption.
    """

    encoders: tuple[HostEncoder, ...]
    captions: tuple[str, ...]
    every: int
    patience: int
    per_caption: int
    seed: int

    def comparison(
        self, style_set: StyleSet, sampler: SamplerSettings, multiple: int
    ) -> Comparison:
        """The drawing that it takes, with the set's token and at its first picture's size."""
        return Comparison(
            captions=self.captions,
            token=style_set.token,
            template=style_set.template,
            seed=self.seed,
            per_caption=self.per_caption,
            size=style_set.size(style_set.items[0], multiple),
            sampler=sampler,
            drift=True,
        )


class StyleWatch(io.ComfyNode):
    """`NSYNC_StyleWatch`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_StyleWatch",
            display_name="Style Watch",
            category="NSYNC",
            description="Has the Contrastive LoRA Trainer draw and score the style while it "
            "trains: the curve on the node, the best checkpoint kept and named, and an end when "
            "the style comes no nearer.",
            search_aliases=["best checkpoint", "early stopping", "validation images"],
            inputs=[
                EncodersSocket.Input("encoders", tooltip="From Load Style Encoder."),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    tooltip="What to draw, one a line, without a word about the style; captions "
                    "that are not in the style set. 8 or more tell something.",
                ),
                io.Int.Input(
                    "every",
                    default=100,
                    min=1,
                    max=1_000_000,
                    tooltip="Steps between two scores. Each draws every caption twice, with the "
                    "style's word and without.",
                ),
                io.Int.Input(
                    "patience",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="End the training after so many scores without a higher style. 0 "
                    "makes all steps.",
                ),
                io.Int.Input(
                    "per_caption", default=1, min=1, max=64, tooltip="Pictures of each caption."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Of the first picture of each caption.",
                ),
            ],
            outputs=[
                StyleWatchSocket.Output(
                    display_name="watch", tooltip="For the trainer's input of the same name."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        encoders: tuple[HostEncoder, ...],
        captions: str,
        every: int,
        patience: int,
        per_caption: int,
        seed: int,
    ) -> io.NodeOutput:
        lines = caption_lines(captions)
        return io.NodeOutput(WatchRequest(encoders, lines, every, patience, per_caption, seed))
