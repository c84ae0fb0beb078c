"""Text-to-image GANs from files, and the Load T2I GAN node."""

from pathlib import Path

import torch
from comfy_api.latest import io

from ...nsync.supcon.gan.model_file import TextToImage, describe, load_model
from ..shown import listed
from ..sockets import TextToImageGanSocket
from .trained_files import GANS_FOLDER, file_fingerprint, file_options, resolve_file


class LoadT2IGAN(io.ComfyNode):
    """`NSYNC_LoadT2IGAN`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_LoadT2IGAN",
            display_name="Load T2I GAN",
            category="NSYNC",
            description="A text-to-image GAN that SupCon GAN Trainer has saved, with what it needs "
            "to read prompts.",
            search_aliases=["load gan", "generator"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=file_options(GANS_FOLDER),
                    tooltip=f"A file in output/{GANS_FOLDER}, where SupCon GAN Trainer saves, or "
                    f"in models/{GANS_FOLDER}.",
                ),
            ],
            outputs=[
                TextToImageGanSocket.Output(display_name="model", tooltip="For T2I GAN Sampler."),
                io.String.Output(
                    display_name="report", tooltip="What it is and was trained with, in words."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> str:
        return file_fingerprint(GANS_FOLDER, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = resolve_file(GANS_FOLDER, file)
        model = loaded_model(path)
        return io.NodeOutput(model, model_report(model, path.stem))


def loaded_model(path: Path) -> TextToImage:
    """The model of a file, in main memory.

    Raises:
        InputError: see `load_model`.
    """
    with torch.inference_mode(False):
        return load_model(path)


def model_report(model: TextToImage, title: str) -> str:
    """What a model says of itself, in words."""
    told, size = model.training, model.family.image_size
    return (
        f"{title}: {describe(model.family)['name']}, {size} x {size} pixels, {told['steps']} steps "
        f"on {told['pictures']} pictures, contrast {told['settings']['contrast']}.\n"
        f"Labels: {listed(model.labels)}."
    )
