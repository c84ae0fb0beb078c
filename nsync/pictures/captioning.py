"""Captions for pictures that have none, by a vision-language model from a local folder.

Any model that transformers loads as image-text-to-text will do. Nothing is downloaded, no code of
the model's is run, and only safetensors are read. The paper (arXiv 2511.01517) used InternVL2-2B,
greedy, with at most 25 words in prompt form.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..errors import InputError
from ..files import write_atomic
from .captions import caption_path, read_caption
from .folder import OnPicture, is_within, pictures_in
from .images import read_image, to_picture

DEFAULT_INSTRUCTION = (
    "Describe what this picture shows in at most {max_words} words, as a prompt for an image "
    "generator: subjects, actions, place, colours of things. Say nothing of style, medium, "
    "technique or artist. Answer with the prompt alone."
)

MAX_SIDE = 1024
"""Pixels; larger pictures are scaled down first, since some models take tokens by the area."""

TOKENS_PER_WORD = 4
"""Room for long words; the words themselves are counted afterwards."""

UNLOADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
)
"""What transformers raises on files that are not what it takes them for."""

MODEL_RULE = "a folder with a vision-language model for transformers (config.json, *.safetensors)"


@dataclass
class CaptionReport:
    """What became of each picture of a folder, by name."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        """The report to read."""
        head = f"{len(self.written)} captions written, {len(self.kept)} were there already."
        lines = [f"  {name}: {problem}" for name, problem in self.problems]
        return "\n".join([head, *(["Without a caption:", *lines] if lines else [])])


@dataclass(frozen=True)
class Captioner:
    """A vision-language model in memory."""

    model: torch.nn.Module
    processor: Callable

    def caption(self, instruction: str, max_words: int, image: Image.Image) -> str:
        """At most `max_words` words on a picture, drawn greedily, on one line."""
        inputs, chat = self._inputs(image, instruction.replace("{max_words}", str(max_words)))
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=TOKENS_PER_WORD * max_words,
            do_sample=False,
            num_beams=1,
        )
        if chat and not self.model.config.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]  # the question comes back first
        return trimmed(self.processor.batch_decode(tokens, skip_special_tokens=True)[0], max_words)

    def _inputs(self, image: Image.Image, instruction: str) -> tuple[dict, bool]:
        """What the model reads, and whether it is a chat.

        Models without a chat template cannot be told what to write: Florence-2 has task words,
        of which the instruction may be one; BLIP and its like go on from the picture alone.
        """
        if getattr(self.processor, "chat_template", None):
            question = [{"type": "image", "image": image}, {"type": "text", "text": instruction}]
            options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
            chat = [{"role": "user", "content": question}]
            template = self.processor.apply_chat_template
            return template(chat, add_generation_prompt=True, **options), True
        tasks = getattr(self.processor, "task_prompts_without_inputs", {})
        if tasks:
            task = instruction if instruction in tasks else "<CAPTION>"
            return self.processor(images=image, text=task, return_tensors="pt"), False
        return self.processor(images=image, return_tensors="pt"), False


def caption_folder(
    folder: Path,
    model_folder: Path,
    *,
    instruction: str = DEFAULT_INSTRUCTION,
    max_words: int = 25,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_picture: OnPicture | None = None,
    make_room: Callable[[], None] = lambda: None,
) -> tuple[list[str], CaptionReport]:
    """Write a caption file for each picture of a folder that has none.

    A caption file that exists is never written to, whatever it holds; so an interrupted run goes
    on where it stopped. The model is loaded only if there is something to write.

    Args:
        folder: where the pictures are, and one folder down, as `read_folder` takes them.
        model_folder: see `captioner`, with `device` and `dtype`.
        instruction: what to ask; `{max_words}` in it stands for that number.
        max_words: longest caption; a longer one is cut between two words.
        on_picture: progress, and a place to interrupt from, before each picture.
        make_room: called before the model is loaded, if it is.

    Returns:
        The captions, one per picture of `pictures_in(folder)`, empty where there is none; a report.

    Raises:
        InputError: no pictures, no model, or no room to write; captions written before stay.
    """
    pictures = pictures_in(folder)
    if not pictures:
        raise InputError("folder", "a folder with pictures", f"{folder.name!r}, which has none")
    report = CaptionReport(kept=[_shown(p, folder) for p in pictures if not _is_missing(p)])
    if len(report.kept) < len(pictures):
        make_room()
        with captioner(model_folder, device, dtype) as model:
            for done, picture in enumerate(pictures):
                if on_picture:
                    on_picture(done, len(pictures))
                if _is_missing(picture):
                    _write(picture, folder, partial(model.caption, instruction, max_words), report)
    return [_existing(picture, folder, report) for picture in pictures], report


@contextmanager
def captioner(folder: Path, device: torch.device | str, dtype: torch.dtype) -> Iterator[Captioner]:
    """The model of a folder while the block lasts; its memory is free afterwards.

    Raises:
        InputError: the folder is missing, or holds no such model in safetensors.
    """
    check_model_folder(folder)
    # The host's inference mode holds for its thread alone, and transformers may load in several.
    with torch.inference_mode(False), torch.no_grad():
        model, processor = _load(folder)
        try:
            yield Captioner(model.to(device, dtype).eval(), processor)
        finally:
            model.to("meta")  # frees the weights even while an error's traceback holds the model


def check_model_folder(folder: Path) -> None:
    """Refuse a folder that holds no model in safetensors."""
    if not (folder / "config.json").is_file():
        raise InputError("model", MODEL_RULE, f"{folder.name!r}, which has no config.json")
    if not any(folder.glob("*.safetensors")):
        remedy = "Files of other kinds can carry code and are not read."
        raise InputError("model", MODEL_RULE, f"{folder.name!r}, which has none", remedy)


def trimmed(text: str, max_words: int) -> str:
    """The first words of a model's answer, on one line, without quotes around or a full stop."""
    words = text.replace("\n", " ").strip(" \"'`*").split()
    return " ".join(words[:max_words]).rstrip(" .,;:-")


def _load(folder: Path) -> tuple[torch.nn.Module, Callable]:
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **safe)
        model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, **safe)
    except UNLOADABLE as error:
        remedy = "A model with code of its own needs the variant made for transformers (`-hf`)."
        got = f"{folder.name!r}, which does not load: {error}"
        raise InputError("model", MODEL_RULE, got, remedy) from error
    if not hasattr(processor, "image_processor"):
        got = f"{folder.name!r}, which has no preprocessor for pictures"
        raise InputError("model", MODEL_RULE, got)
    return model, processor


def _write(
    picture: Path, folder: Path, caption: Callable[[Image.Image], str], report: CaptionReport
) -> None:
    name = _shown(picture, folder)
    if not is_within(folder, picture):
        report.problems.append((name, "a link that points out of the folder"))
        return
    try:
        text = caption(_as_pil(read_image(picture)))
    except InputError as error:
        report.problems.append((name, error.got))
        return
    if not text:
        report.problems.append((name, "the model said nothing"))
    elif _is_missing(picture):  # not written by anyone else meanwhile
        write_atomic(caption_path(picture), text + "\n")
        report.written.append(name)


def _existing(picture: Path, folder: Path, report: CaptionReport) -> str:
    caption, fault = read_caption(caption_path(picture), folder)
    name = _shown(picture, folder)
    if fault and name not in dict(report.problems):
        report.problems.append((name, fault))
    return caption


def _is_missing(picture: Path) -> bool:
    path = caption_path(picture)
    return not (path.exists() or path.is_symlink())


def _shown(picture: Path, folder: Path) -> str:
    return picture.relative_to(folder).as_posix()


def _as_pil(pixels: Tensor) -> Image.Image:
    image = to_picture(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image
