"""The Tiny World Pictures node: a labelled set of simple shapes in several styles."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from comfy_api.latest import io
from torch import Tensor

from ..nsync.errors import InputError
from ..nsync.supcon.labels import SEVERAL
from ..nsync.tiny.scenes import COLOURS, PLACES, SHAPES
from ..nsync.tiny.world import PRETRAIN_STYLES, STYLES, Scene, draw_scenes, render

ONE, UP_TO_THREE = "one object", "up to three objects"

_READ: dict[str, Callable[[Scene, str], str]] = {
    "style": lambda scene, style: words_for(style),
    "shape": lambda scene, style: SHAPES[scene.shape],
    "colour": lambda scene, style: tuple(COLOURS)[scene.colour],
    "place": lambda scene, style: tuple(PLACES)[scene.place],
}

LABELS: dict[str, tuple[str, ...]] = {
    "style": ("style",),
    "shape": ("shape",),
    "style and shape": ("style", "shape"),
    "style, shape, colour and place": ("style", "shape", "colour", "place"),
}
"""What a picture's labels say, by what the node calls it."""


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
        captions = [
            f"{scene.caption()} in the style of {words_for(style)}" for scene, style in pairs
        ]
        pictures = _pictures(content, drawn_in, seed)
        kinds = [_READ[kind] for kind in LABELS[label_by]]
        labels = [f"{SEVERAL} ".join(read(*pair) for read in kinds) for pair in pairs]
        return io.NodeOutput(pictures, captions, labels, "\n".join(captions))


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
            options=list(LABELS),
            tooltip="What pictures of one label have in common. Where it is several things, each "
            "picture has several labels.",
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
