"""The Tiny World Pictures node: a labelled set of simple shapes in several styles."""

import itertools
from dataclasses import replace

from comfy_api.latest import io

from ...nsync.errors import InputError
from ...nsync.tiny.labelled import LABEL_BY, label_of
from ...nsync.tiny.world import (
    PRETRAIN_STYLES,
    STYLES,
    Styled,
    draw_scenes,
    in_words,
    render_each,
)

ONE, UP_TO_THREE = "one object", "up to three objects"


class TinyWorldPictures(io.ComfyNode):
    """`NSYNC_TinyWorldPictures`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_TinyWorldPictures",
            display_name="Tiny World Pictures",
            category="NSYNC",
            description="Pictures of simple shapes drawn by this pack in several styles, with "
            "captions and labels: a labelled set for trying out the training of text-to-image "
            "GANs.",
            search_aliases=["example pictures", "toy dataset", "labelled images", "labels"],
            inputs=_inputs(),
            outputs=[
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="One picture each."
                ),
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="What each picture shows, and in which style.",
                ),
                io.String.Output(
                    display_name="labels", is_output_list=True, tooltip="The label of each picture."
                ),
                io.String.Output(
                    display_name="prompts",
                    tooltip="The captions as one text, one a line, for T2I GAN Sampler.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, label_by: str, styles: str, scenes: str, count: int, seed: int
    ) -> io.NodeOutput:
        names = style_names(styles)
        content = draw_scenes(count, seed)
        if scenes == ONE:
            content = [replace(scene, count=0, background=0) for scene in content]
        shown = [Styled(*each) for each in zip(content, itertools.cycle(names), strict=False)]
        captions = [one.caption for one in shown]
        pictures = render_each(shown, seed).movedim(1, -1).contiguous()
        labels = [label_of(label_by, one) for one in shown]
        return io.NodeOutput(list(pictures.split(1)), captions, labels, "\n".join(captions))


def style_names(text: str) -> list[str]:
    """The styles that a user has listed, separated by commas.

    Raises:
        InputError: none, or one that the world does not know.
    """
    names = [name.strip().replace(" ", "_") for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STYLES]
    if unknown or not names:
        known = ", ".join(map(in_words, STYLES))
        raise InputError("styles", f"styles of {known}", ", ".join(map(repr, unknown)) or "none")
    return names


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "label_by",
            options=list(LABEL_BY),
            tooltip="What pictures of one label have in common: the style, the shape, both, or all "
            "that the caption says. several labels: one each for style, shape, colour and place.",
        ),
        io.String.Input(
            "styles",
            default=", ".join(PRETRAIN_STYLES),
            tooltip="Styles, separated by commas; the pictures take them in turn. Known are "
            f"{', '.join(map(in_words, STYLES))}.",
        ),
        io.Combo.Input(
            "scenes",
            options=[ONE, UP_TO_THREE],
            tooltip="One object before a plain background; or up to three, before a plain one, "
            "over a horizon or over a hill.",
        ),
        io.Int.Input("count", default=512, min=2, max=65536, tooltip="How many pictures to draw."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="What the pictures show comes from this: the same seed, the same pictures.",
        ),
    ]
