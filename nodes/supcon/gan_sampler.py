"""The T2I GAN Sampler node: prompts become pictures, in one pass each."""

from comfy_api.latest import io

from ...nsync.supcon.encoders import unknown_words
from ...nsync.supcon.gan.model_file import TextToImage
from ...nsync.supcon.gan.sampler import generate
from ..host.devices import at_work, weight_of
from ..progress import on_picture
from ..prompts import prompt_lines
from ..shown import shown
from ..sockets import TextToImageGanSocket


class T2IGANSampler(io.ComfyNode):
    """`NSYNC_T2IGANSampler`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_T2IGANSampler",
            display_name="T2I GAN Sampler",
            category="NSYNC",
            description="Paints prompts with a text-to-image GAN: one pass of the network for each "
            "picture, no steps.",
            search_aliases=["gan", "sample", "generate"],
            inputs=_inputs(),
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="All pictures, prompt by prompt, as one batch."
                ),
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="The prompt of each picture, for the captions of Style Evaluator.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: TextToImage,
        prompts: str,
        seed: int,
        per_prompt: int,
        truncation: float,
        batch: int,
    ) -> io.NodeOutput:
        lines = prompt_lines(prompts)
        asked = [line for line in lines for _ in range(per_prompt)]
        seeds = [seed + k for _ in lines for k in range(per_prompt)]
        # Room for what is computed as well.
        room = 4 * weight_of(model.generator, model.encoders)
        with at_work(room, model.generator, model.encoders):
            pictures = generate(
                model.generator,
                model.encoders,
                asked,
                seeds,
                truncation=truncation,
                batch=batch,
                on_item=on_picture(),
            )
        told = unknown_words(model.encoders, lines)
        # Always a text: the page leaves that of an earlier run standing where none comes.
        told = told or f"Painted {len(asked)} pictures"
        told = shown([told], node_id=cls.hidden.unique_id)
        return io.NodeOutput(pictures.movedim(1, -1), asked, ui=told)


def _inputs() -> list[io.Input]:
    return [
        TextToImageGanSocket.Input("model", tooltip="From SupCon GAN Trainer or Load T2I GAN."),
        io.String.Input(
            "prompts",
            default="",
            multiline=True,
            tooltip="What to paint, a prompt a line, in words of the captions that the model was "
            "trained with; it knows no others.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Of the first picture of each prompt; the next one has the next seed. A "
            "picture depends on its prompt, seed and truncation, not on those beside it.",
        ),
        io.Int.Input("per_prompt", default=1, min=1, max=1024, tooltip="Pictures of each prompt."),
        io.Float.Input(
            "truncation",
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="Keeps the noise within plus and minus so much: the lower, the more typical "
            "the pictures, and the more alike. 0 does not.",
        ),
        io.Int.Input(
            "batch",
            default=16,
            min=1,
            max=1024,
            advanced=True,
            tooltip="Pictures painted at once; fewer take less memory.",
        ),
    ]
