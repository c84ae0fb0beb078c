"""Pairs of encoders as the nodes give them on, and the Load SupCon Encoders node."""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ...nsync.supcon.clip_encoders import ClipEncoders
from ...nsync.supcon.encoder_file import encoders_metadata, load_encoders
from ...nsync.supcon.encoders import Encoders
from ...nsync.supcon.small_encoders import SmallEncoders
from ..shown import listed
from ..sockets import SupConEncodersSocket
from .trained_files import ENCODERS_FOLDER, file_fingerprint, file_options, resolve_file

SMALL = "small"
_CLIP_FOLDER = "clip_vision"


class LoadSupConEncoders(io.ComfyNode):
    """`NSYNC_LoadSupConEncoders`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_LoadSupConEncoders",
            display_name="Load SupCon Encoders",
            category="NSYNC",
            description="A pair of encoders that SupCon Pretrainer has saved: what pictures and "
            "texts of a text-to-image GAN are compared by.",
            search_aliases=["damsm", "text encoder", "image encoder", "contrastive"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=file_options(ENCODERS_FOLDER),
                    tooltip=f"A file in output/{ENCODERS_FOLDER}, where SupCon Pretrainer saves, "
                    f"or in models/{ENCODERS_FOLDER}.",
                ),
            ],
            outputs=[
                SupConEncodersSocket.Output(
                    display_name="encoders", tooltip="For SupCon GAN Trainer."
                ),
                io.String.Output(display_name="report", tooltip="What they are, in words."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> str:
        return file_fingerprint(ENCODERS_FOLDER, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = resolve_file(ENCODERS_FOLDER, file)
        return io.NodeOutput(frozen_encoders(path), encoders_report(path))


def frozen_encoders(path: Path) -> Encoders:
    """The encoders of a file, in main memory, for others to look through.

    Raises:
        InputError: see `load_encoders`.
    """
    with torch.inference_mode(False):
        return load_encoders(path).requires_grad_(False)


def encoders_report(path: Path) -> str:
    """What a file of encoders says of itself, in words; one that the library wrote may say less."""
    told = encoders_metadata(path)
    training, width = told["training"], told["config"]["width"]
    lines = [f"{path.stem}: {told['kind']} encoders, features of {width} numbers."]
    if "steps" in training and "pictures" in training:
        lines.append(f"Trained {training['steps']} steps on {training['pictures']} pictures.")
    if "labels" in training:
        lines.append(f"Labels: {listed(training['labels'])}.")
    return "\n".join(lines)


def first_options() -> list[str]:
    """What a pretraining can begin with: nothing, or a CLIP of the user's."""
    roots = map(Path, folder_paths.get_folder_paths(_CLIP_FOLDER))
    found = {
        f"{_CLIP_FOLDER}/{path.parent.relative_to(root).as_posix()}"
        for root in roots
        for path in root.glob("*/config.json")
    }
    return [SMALL, *sorted(found)]


def first_encoders(
    choice: str, captions: list[str], seed: int, image_size: int, width: int
) -> Encoders:
    """Encoders that a pretraining begins with: the same for the same inputs.

    Args:
        choice: one of `first_options`.
        captions: of the set, whose words the small ones know.
        image_size: of the small ones; CLIP has its own.

    Raises:
        InputError: such sizes; a folder without a CLIP model.
    """
    if choice == SMALL:
        return SmallEncoders.fresh(captions, seed, image_size, width)
    name = choice.removeprefix(f"{_CLIP_FOLDER}/")
    places = [Path(root) / name for root in folder_paths.get_folder_paths(_CLIP_FOLDER)]
    return ClipEncoders.from_folder(next(filter(Path.is_dir, places), places[0]), width)
