"""The Tiny World Pictures node: a labelled set of simple shapes in several styles."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from comfy_api.latest import io
from torch import Tensor

from ...nsync.errors import InputError
from ...nsync.supcon.labels import SEVERAL
from ...nsync.tiny.scenes import COLOURS, PLACES, SHAPES
from ...nsync.tiny.world import PRETRAIN_STYLES, STYLES, Scene, draw_scenes, render

ONE, UP_TO_THREE = "one object", "up to three objects"

STYLE, SHAPE, BOTH, CAPTION, SEVERAL_LABELS = (
    "style", "shape", "style and shape", "caption", "several labels"
)  # fmt: skip
LABEL_BY = (STYLE, SHAPE, BOTH, CAPTION, SEVERAL_LABELS)


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
        drawn_in = [names[place % len(names)] for place in range(count)]
        pairs = list(zip(content, drawn_in, strict=True))
        captions = [caption_of(scene, style) for scene, style in pairs]
        pictures = _pictures(content, drawn_in, seed)
        labels = [label_of(label_by, scene, style) for scene, style in pairs]
        return io.NodeOutput(pictures, captions, labels, "\n".join(captions))


def caption_of(scene: Scene, style: str) -> str:
    """What a picture shows, and in which style."""
    return f"{scene.caption()} in the style of {words_for(style)}"


def label_of(label_by: str, scene: Scene, style: str) -> str:
    """The label of a picture, or its labels.

    Args:
        label_by: one of `LABEL_BY`.
    """
    named, shape = words_for(style), SHAPES[scene.shape]
    several = (named, shape, tuple(COLOURS)[scene.colour], tuple(PLACES)[scene.place])
    return {
        STYLE: named,
        SHAPE: shape,
        BOTH: f"{named} {shape}",
        CAPTION: caption_of(scene, style),
        SEVERAL_LABELS: f"{SEVERAL} ".join(several),
    }[label_by]


def style_names(text: str) -> list[str]:
    """The styles that a user has listed, separated by commas.

    Raises:
        InputError: none, or one that the world does not know.
    """
    names = [name.strip().replace(" ", "_") for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STYLES]
    if unknown or not names:
        known = ", ".join(map(words_for, STYLES))
        raise InputError("styles", f"styles of {known}", ", ".join(map(repr, unknown)) or "none")
    return names


def words_for(style: str) -> str:
    """What captions call a style."""
    return style.replace("_", " ")


def _pictures(scenes: Sequence[Scene], drawn_in: Sequence[str], seed: int) -> list[Tensor]:
    """Pictures `[1, h, w, 3]`, each in its style."""
    pictures = torch.empty(len(scenes), 64, 64, 3)
    for style in dict.fromkeys(drawn_in):
        places = [place for place, name in enumerate(drawn_in) if name == style]
        drawn = render([scenes[place] for place in places], style, seed)
        pictures[places] = drawn.movedim(1, -1)
    return list(pictures.split(1))


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
            f"{', '.join(map(words_for, STYLES))}.",
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
