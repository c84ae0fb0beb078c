"""The embedded tiny base and pictures of its world: everything that a first try needs."""

from comfy_api.latest import io

from ...nsync.tiny import BASE_FOLDER
from ...nsync.tiny.world import HELD_OUT_STYLES, PRETRAIN_STYLES, draw_scenes, render
from .model import load_tiny_base


class TinyBase(io.ComfyNode):
    """`NSYNC_TinyBase`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_TinyBase",
            display_name="NSYNC Tiny Base",
            category="NSYNC",
            description="A small text-to-image model that comes with this pack: simple shapes in "
            "eight styles, 64 x 64 pixels. It draws and learns within minutes on a CPU, for trying "
            "things out.",
            search_aliases=["tiny model", "toy model", "test model", "example model"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For any sampler."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode."),
                io.Vae.Output(display_name="vae", tooltip="For VAE Encode and VAE Decode."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_tiny_base(BASE_FOLDER))


class TinyStylePictures(io.ComfyNode):
    """`NSYNC_TinyStylePictures`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_TinyStylePictures",
            display_name="Tiny Style Pictures",
            category="NSYNC",
            description="Pictures of simple shapes drawn by this pack in one style, with captions "
            "of what they show: a style set for trying things out with the tiny base.",
            search_aliases=["example pictures", "toy dataset", "test images"],
            inputs=[
                io.Combo.Input(
                    "style",
                    options=[*HELD_OUT_STYLES, *PRETRAIN_STYLES],
                    tooltip=f"How the pictures are drawn. The tiny base has never seen the first "
                    f"{len(HELD_OUT_STYLES)}; it knows the others by name.",
                ),
                io.Int.Input(
                    "count", default=48, min=1, max=4096, tooltip="How many pictures to draw."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="What the pictures show comes from this: the same seed, the same "
                    "pictures, in any style.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="One picture each."
                ),
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="What each picture shows, without a word about its style.",
                ),
            ],
        )

    @classmethod
    def execute(cls, style: str, count: int, seed: int) -> io.NodeOutput:
        scenes = draw_scenes(count, seed)
        pictures = render(scenes, style, seed).movedim(1, -1)
        return io.NodeOutput(list(pictures.split(1)), [scene.caption() for scene in scenes])
