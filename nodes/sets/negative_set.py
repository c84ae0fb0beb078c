"""The Negative Set Generator node: the model paints each caption in a generic style."""

from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io

from ...nsync.denoiser import SamplerSettings
from ...nsync.errors import InputError
from ...nsync.names import check_name
from ...nsync.negatives import (
    GENERIC_WORDS,
    NEGATIVE_TEMPLATE,
    NegativeSettings,
    make_negatives,
)
from ...nsync.pictures.folder import is_within
from ...nsync.pictures.images import read_image
from ...nsync.sets.negative_store import missing_files
from ...nsync.style_set import StyleSet
from ..host.adapter import HostDenoiser
from ..progress import on_picture
from ..sampling import sampling_inputs
from ..sockets import StyleSetSocket

FROM_NOISE, FROM_POSITIVE = "from noise", "from positive"


class NegativeSetGenerator(io.ComfyNode):
    """`NSYNC_NegativeSetGenerator`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_NegativeSetGenerator",
            display_name="Negative Set Generator",
            category="NSYNC",
            description="The model itself paints every caption of a style set in a generic style. "
            "What these pictures share with the style is what training then keeps out of it.",
            search_aliases=["negative set", "regularization images", "class images", "nsync"],
            inputs=[*_sockets(), *_prompts(), *_sampling(), *_place()],
            outputs=[
                StyleSetSocket.Output(
                    display_name="style_set", tooltip="The same set, with its negatives."
                ),
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="The negatives."
                ),
                io.String.Output(display_name="folder", tooltip="Where the negatives are kept."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: object) -> str:
        """Changes when negatives were deleted, so that they are made again."""
        try:
            return ",".join(missing_files(negatives_folder(name or "")))
        except InputError as error:
            return str(error)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        style_set: StyleSet,
        generic_words: str,
        template: str,
        per_positive: int,
        steps: int,
        guidance: float,
        sampler: str,
        scheduler: str,
        mode: str,
        denoise: float,
        seed: int,
        name: str,
    ) -> io.NodeOutput:
        settings = NegativeSettings(
            words=tuple(filter(None, (word.strip() for word in generic_words.split(",")))),
            template=template,
            per_positive=per_positive,
            sampler=SamplerSettings(steps, guidance, sampler, scheduler),
            from_positive=mode == FROM_POSITIVE,
            denoise=denoise,
            seed=seed,
        )
        folder = negatives_folder(name)
        made = make_negatives(
            settings, HostDenoiser(model, clip, vae), style_set, folder, on_picture()
        )
        return io.NodeOutput(made, _pictures(made), str(folder))


def negatives_folder(name: str) -> Path:
    """`<output>/nsync/negatives/<name>`.

    Raises:
        InputError: the name is none, or leads out of that folder.
    """
    root = Path(folder_paths.get_output_directory()) / "nsync" / "negatives"
    folder = root / check_name(name)
    if not is_within(root, folder):
        rule = "a name of a folder in the output folder"
        raise InputError("name", rule, f"{name!r}, a link that points out of it")
    return folder


def _pictures(style_set: StyleSet) -> list[torch.Tensor]:
    files = [file for item in style_set.items for file in item.negatives]
    return [read_image(file).movedim(0, -1)[None] for file in files]


def _sockets() -> list[io.Input]:
    return [
        io.Model.Input(
            "model", tooltip="The model that paints: the very one that is trained later."
        ),
        io.Clip.Input("clip", tooltip="Its text encoder."),
        io.Vae.Input("vae", tooltip="Its VAE."),
        StyleSetSocket.Input("style_set", tooltip="Pictures of the style with captions."),
    ]


def _prompts() -> list[io.Input]:
    return [
        io.String.Input(
            "generic_words",
            default=", ".join(GENERIC_WORDS),
            tooltip="Words, separated by commas, that stand in for the style's own word. Each "
            "picture draws one of them.",
        ),
        io.String.Input(
            "template",
            default=NEGATIVE_TEMPLATE,
            tooltip="How a caption and a generic word make a prompt; {caption} and {word} must "
            "both be in it.",
        ),
        io.Int.Input(
            "per_positive",
            default=1,
            min=1,
            max=100,
            tooltip="Negatives to paint for each picture of the style set.",
        ),
    ]


def _sampling() -> list[io.Input]:
    return [
        *sampling_inputs(steps=50),
        io.Combo.Input(
            "mode",
            options=[FROM_NOISE, FROM_POSITIVE],
            default=FROM_NOISE,
            tooltip="Start from pure noise, as in the paper; or from the style set's own picture, "
            "which keeps its composition.",
        ),
        io.Float.Input(
            "denoise",
            default=0.6,
            min=0.01,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip="In mode 'from positive': how much is painted anew. Lower keeps more of the "
            "picture, and of its style.",
        ),
    ]


def _place() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Noise and words come from this, picture by picture: the same seed, the same "
            "negatives.",
        ),
        io.String.Input(
            "name",
            default="negatives",
            tooltip="Folder under output/nsync/negatives where they are kept. What is there "
            "already is not painted again.",
        ),
    ]
