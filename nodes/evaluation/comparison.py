"""The Style Comparison node: the same prompts and seeds, drawn without and with each LoRA."""

from collections.abc import Callable, Iterator
from functools import partial

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io

from ...nsync.denoiser import SamplerSettings
from ...nsync.embedding_file import read_embedding
from ...nsync.errors import InputError, told_as
from ...nsync.evaluation.drawing import Comparison, arm_of
from ...nsync.evaluation.grid import grid
from ...nsync.style_set import DEFAULT_TEMPLATE, check_template
from ...nsync.trained import EMBEDDING, LORA
from ..host.adapter import HostDenoiser
from ..host.lora import apply_lora
from ..progress import on_picture
from ..prompts import prompt_lines
from ..sampling import sampling_inputs
from ..sockets import ArmsSocket
from .learned import EMBEDDING_LINE, checked, files_of, fingerprint, titles

BASE = "base"


class StyleComparison(io.ComfyNode):
    """`NSYNC_StyleComparison`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_StyleComparison",
            display_name="Style Comparison",
            category="NSYNC",
            description="Draws the same prompts with the same seeds by the base model and by each "
            "LoRA or embedding: a labelled grid to look at, and the arms that Style Evaluator "
            "scores.",
            search_aliases=["xy plot", "compare loras", "compare checkpoints", "lora grid"],
            inputs=[*_sockets(), *_words(), *_sampling()],
            outputs=[
                ArmsSocket.Output(display_name="arms", tooltip="For Style Evaluator."),
                io.Image.Output(display_name="grid", tooltip="Prompts down, arms across."),
                io.Image.Output(
                    display_name="images",
                    is_output_list=True,
                    tooltip="The pictures one by one: all of the base, then of the next arm.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, loras: str | None, **_: object) -> str:
        """Changes when a file that a line names is written anew."""
        return fingerprint(loras or "")

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        loras: str,
        captions: str,
        token: str,
        template: str,
        seed: int,
        per_caption: int,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        sampler: str,
        scheduler: str,
        drift: bool,
    ) -> io.NodeOutput:
        check_template("template", template, "caption", "token")
        comparison = Comparison(
            captions=caption_lines(captions),
            token=token,
            template=template,
            seed=seed,
            per_caption=per_caption,
            size=(width, height),
            sampler=SamplerSettings(steps, guidance, sampler, scheduler),
            drift=drift,
        )
        HostDenoiser(model, clip, vae).check_drawing(comparison.sampler, comparison.size)
        names = [BASE, *checked(loras)]
        on_item, arms = on_picture(), []
        models = _models(model, clip, vae, names, token)
        for title, (denoiser, word) in zip(titles(names), models, strict=True):
            told = partial(_told, on_item, len(arms), len(names))
            arms.append(arm_of(comparison, denoiser, title, word, told))
        pictures = [picture for arm in arms for picture in arm.pictures]
        shown = torch.from_numpy(grid(arms)).float()[None] / 255
        return io.NodeOutput(tuple(arms), shown, [_image(picture) for picture in pictures])


def _told(on_item: Callable[[int, int], None], arm: int, arms: int, done: int, total: int) -> None:
    """Progress over all arms from the progress in one."""
    on_item(arm * total + done, arms * total)


def _models(
    model: ModelPatcher, clip: CLIP, vae: VAE, names: list[str], token: str
) -> Iterator[tuple[HostDenoiser, str]]:
    """Each arm's model, and the word that stands for the style in its prompts.

    Raises:
        InputError: a run's embedding is of another model.
    """
    for name in names:
        files, own = files_of(name), (model, clip)
        if lora := files.get(LORA):
            own = apply_lora(*own, comfy.utils.load_torch_file(str(lora), safe_load=True))
        denoiser, by_name = HostDenoiser(*own, vae), name.startswith(EMBEDDING_LINE)
        if EMBEDDING in files and not by_name:  # the host does not list it: it has no name
            with told_as("loras"):
                denoiser.words[token] = read_embedding(files[EMBEDDING], denoiser)
        yield denoiser, name if by_name else token


def caption_lines(text: str) -> tuple[str, ...]:
    """The captions of a text, one a line.

    Raises:
        InputError: there is none.
    """
    lines = tuple(prompt_lines(text))
    if not lines:
        raise InputError("captions", "at least one line", "none")
    return lines


def _image(picture: torch.Tensor) -> torch.Tensor:
    return picture.movedim(0, -1)[None].float() / 255


def _sockets() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The base model."),
        io.Clip.Input("clip", tooltip="Its text encoder."),
        io.Vae.Input("vae", tooltip="Its VAE."),
    ]


def _words() -> list[io.Input]:
    return [
        io.String.Input(
            "loras",
            default="",
            multiline=True,
            tooltip="What to compare with the base, one LoRA or embedding a line: names as Load "
            "LoRA lists them (* stands for any letters: my_style*), embedding:name, or run:name "
            "for the checkpoints that Style Watch kept of a run. Connect the trainer's lora_name "
            "to compare what it has just made.",
        ),
        io.String.Input(
            "captions",
            default="",
            multiline=True,
            tooltip="What to draw, one a line, without a word about the style. Take captions that "
            "training has not seen; 20 or more make a verdict.",
        ),
        io.String.Input("token", default="sks", tooltip="The word that stands for the style."),
        io.String.Input(
            "template",
            default=DEFAULT_TEMPLATE,
            tooltip="How a caption and the token make a prompt, as in training.",
        ),
        io.Boolean.Input(
            "drift",
            default=False,
            tooltip="Draw every caption without the token as well, to see how much the LoRA has "
            "changed what it should not touch. Twice the time.",
        ),
    ]


def _sampling() -> list[io.Input]:
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Of the first picture of each caption; every arm has the same seeds.",
        ),
        io.Int.Input(
            "per_caption", default=1, min=1, max=64, tooltip="Pictures of each caption and arm."
        ),
        io.Int.Input("width", default=512, min=16, max=4096, step=8, tooltip="In pixels."),
        io.Int.Input("height", default=512, min=16, max=4096, step=8, tooltip="In pixels."),
        *sampling_inputs(steps=30),
    ]
