"""The Caption Images node: caption files for pictures that have none, by a model of the user's."""

import os
from functools import partial
from pathlib import Path

import folder_paths
import torch
from comfy import model_management
from comfy_api.latest import io

from ...nsync.errors import InputError
from ...nsync.pictures.captioning import (
    DEFAULT_INSTRUCTION,
    MODEL_RULE,
    caption_folder,
    check_model_folder,
)
from ..folders import folder_fingerprint, folder_options, folder_problem, resolve_folder
from ..progress import on_picture
from ..shown import shown

MODELS_KEY = "LLM"
"""Where packs for language models already look: `models/LLM`, a folder per model."""


class CaptionImages(io.ComfyNode):
    """`NSYNC_CaptionImages`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_CaptionImages",
            display_name="Caption Images",
            category="NSYNC",
            description="Writes a caption file for each picture of a folder that has none, by a "
            "vision-language model from models/LLM. Existing captions are never touched.",
            search_aliases=[
                "caption",
                "tagger",
                "describe images",
                "BLIP",
                "Florence-2",
                "Qwen-VL",
            ],
            is_output_node=True,
            inputs=_inputs(),
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.String.Output("captions", display_name="captions", is_output_list=True),
                io.String.Output("report", display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = "", model: str | None = "") -> bool | str:
        # Of a list with nothing in it the page sends no value at all.
        answer = folder_problem(folder)
        return _model_problem(model) if answer is True else answer

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, **_: object) -> str:
        return folder_fingerprint(folder) if folder else ""

    @classmethod
    def execute(
        cls, folder: str, model: str, instruction: str, max_words: int, device: str
    ) -> io.NodeOutput:
        place, model_folder = resolve_folder(folder), resolve_model(model)
        target = torch.device("cpu") if device == "cpu" else model_management.get_torch_device()
        try:
            captions, report = caption_folder(
                place,
                model_folder,
                instruction=instruction,
                max_words=max_words,
                device=target,
                dtype=_dtype(target),
                on_picture=on_picture(),
                make_room=partial(_make_room, model_folder, target),
            )
        finally:
            model_management.soft_empty_cache()
        told = report.text()
        return io.NodeOutput(captions, told, ui=shown([told], node_id=cls.hidden.unique_id))


def model_options() -> list[str]:
    """Model folders under models/LLM, one or two levels down: `name` or `author/name`."""
    found = {
        path.parent.relative_to(root).as_posix()
        for root in _model_roots()
        for pattern in ("*/config.json", "*/*/config.json")
        for path in root.glob(pattern)
    }
    return sorted(found)


def resolve_model(value: str) -> Path:
    """The folder of a model that a workflow names.

    Raises:
        InputError: no such folder under models/LLM, or no model in safetensors in it.
    """
    if value not in model_options():
        places = " or ".join(map(str, _model_roots()))
        remedy = f"Put one there, in a folder of its own under {places}."
        raise InputError("model", MODEL_RULE, f"{value!r}, which is not there", remedy)
    places = [root / value for root in _model_roots()]
    place = next(place for place in places if (place / "config.json").is_file())
    check_model_folder(place)
    return place


def _model_roots() -> list[Path]:
    registered = folder_paths.folder_names_and_paths.get(MODELS_KEY, ([], set()))[0]
    usual = os.path.join(folder_paths.models_dir, MODELS_KEY)
    return [Path(root) for root in dict.fromkeys((*registered, usual))]


def _model_problem(value: str | None) -> bool | str:
    try:
        if value is not None:  # linked: known only when the workflow runs
            resolve_model(value)
    except InputError as error:
        return str(error)
    return True


def _dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if model_management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if model_management.should_use_fp16(device) else torch.float32


def _make_room(model_folder: Path, device: torch.device) -> None:
    """Have the host put its own models aside, for the weights and half as much again to work in."""
    weights = sum(path.stat().st_size for path in model_folder.glob("*.safetensors"))
    model_management.free_memory(1.5 * weights, device)


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "folder",
            options=folder_options(),
            tooltip="Folder of pictures under the host's input or datasets folder. A file x.txt is "
            "written beside each x.png that has none.",
        ),
        io.Combo.Input(
            "model",
            options=model_options(),
            tooltip="A vision-language model for transformers in a folder of its own under "
            "models/LLM: config.json and safetensors, as downloaded. Code in it is not run.",
        ),
        io.String.Input(
            "instruction",
            default=DEFAULT_INSTRUCTION,
            multiline=True,
            tooltip="What the model is asked; {max_words} stands for the number below. Captions "
            "should tell the content and leave the style out. Florence-2 takes one of its task "
            "words instead (<CAPTION>, ...); BLIP takes nothing.",
        ),
        io.Int.Input(
            "max_words",
            default=25,
            min=3,
            max=200,
            tooltip="Longest caption in words; a longer answer is cut.",
        ),
        io.Combo.Input(
            "device",
            options=["auto", "cpu"],
            default="auto",
            advanced=True,
            tooltip="Where the model runs: the host's own choice, or the CPU if it does not fit.",
        ),
    ]
