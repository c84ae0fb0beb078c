"""What several commands ask for: the model, the pictures, how previews are drawn."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..names import check_name
from ..runs.judgements import Judgement, at_least, one_of
from ..style_set import DEFAULT_TEMPLATE, check_template

AUTO = "auto"
STOP, SKIP = "stop", "skip"
WEIGHTS = ("fp32", "bf16", "fp16")
TINY = "tiny"


def a_file(settings: object, name: str, needed: bool = False) -> Judgement:
    """A file that is there; nothing given is good where none is needed."""
    return _there(settings, name, "file", Path.is_file, needed)


def a_folder(settings: object, name: str, needed: bool = False) -> Judgement:
    """Likewise a folder."""
    return _there(settings, name, "folder", Path.is_dir, needed)


def files(settings: object, name: str) -> Judgement:
    """Any number of files, all of them there; those that are not are named."""
    lacking = [str(path) for path in getattr(settings, name) if not path.is_file()]
    return name, "files that are there", ", ".join(lacking), not lacking


def a_place(settings: object, name: str) -> Judgement:
    """A folder to write in, which need not be there yet: what is there of its path is a folder."""
    path = getattr(settings, name).absolute()
    nearest = next(one for one in (path, *path.parents) if os.path.exists(one))
    good = os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)
    return name, "a folder that can be made and written in", str(path), good


def a_name(settings: object, name: str) -> Judgement:
    """What results are called: a file's name, and no path."""
    value = getattr(settings, name)
    try:
        check_name(value)
    except InputError as error:
        return name, error.expected, value, False
    return name, "a file name", value, True


def a_token(settings: object, name: str) -> Judgement:
    """A word that stands for the style."""
    value = getattr(settings, name)
    return name, "a word that stands for the style", value, bool(value.strip())


def a_template(settings: object, name: str) -> Judgement:
    """How caption and token make a prompt."""
    value = getattr(settings, name)
    try:
        check_template(name, value, "caption", "token")
    except InputError as error:
        return name, error.expected, value, False
    return name, "a text with {caption} and {token}", value, True


def _there(
    settings: object, name: str, what: str, is_there: Callable[[Path], bool], needed: bool
) -> Judgement:
    path = getattr(settings, name)
    good = not needed if path is None else is_there(path)
    return name, f"a {what} that is there", _told(path), good


def _told(path: Path | None) -> str:
    return "none" if path is None else str(path)


@dataclass(frozen=True)
class Model:
    """The base model.

    Attributes:
        path: a diffusers pipeline's folder, or a checkpoint in one safetensors file, of Stable
            Diffusion 1, 2, XL, 3 or Flux; `tiny` for the embedded tiny base. Nothing is downloaded.
        config: for a single file, a folder with the pipeline's configuration and tokenizers, and
            the weights of the parts that the file lacks; of Stable Diffusion 1 and XL CLIP's
            vocab.json and merges.txt are enough, and none of it is needed beside a ComfyUI.
        device: where it computes: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        weights: in which precision its weights are held; training in fp32 wants fp32.
    """

    path: Path | None = None
    config: Path | None = None
    device: str = AUTO
    weights: str = "fp32"

    @property
    def is_tiny(self) -> bool:
        """Whether the embedded tiny base is meant, and no file or folder of its name."""
        return self.path is not None and self.path.name == TINY and not self.path.exists()

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        there = self.path is not None and (self.path.exists() or self.is_tiny)
        rule = "a folder or a safetensors file that is there, or `tiny`"
        return [
            ("path", rule, _told(self.path), there),
            a_folder(self, "config"),
            one_of(self, "weights", WEIGHTS),
        ]


@dataclass(frozen=True)
class Pictures:
    """The style set.

    Attributes:
        folder: pictures of the style, each with its caption beside it (x.txt beside x.png);
            the names of folders inside it are labels.
        token: the word that will stand for the style in prompts (trigger word).
        template: how caption and token make a prompt; has {caption} and {token}.
        resolution: side in pixels of the square to whose area pictures are scaled; the base's own,
            such as 512 for SD1.5, 1024 for SDXL, 64 for the tiny base.
        problem_files: `stop` where pictures cannot be used, or `skip` them; both list them.
        listing: a set that a training has listed (set.json of its run), in place of all these.
    """

    folder: Path | None = None
    token: str = "sks"
    template: str = DEFAULT_TEMPLATE
    resolution: int = 512
    problem_files: str = STOP
    listing: Path | None = None

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        one = bool(self.folder) != bool(self.listing)
        got = "both" if self.folder and self.listing else "neither"
        return [
            ("folder", "`folder` or `listing`, one of the two", got, one),
            a_folder(self, "folder"),
            a_file(self, "listing"),
            a_token(self, "token"),
            a_template(self, "template"),
            one_of(self, "problem_files", (STOP, SKIP)),
            at_least(self, "resolution", 16),
        ]


@dataclass(frozen=True)
class Preview:
    """Pictures drawn while the model is trained.

    Attributes:
        prompt: of the previews; empty takes that of the first picture of the set.
        steps: of the sampler.
        guidance: how closely the prompt is followed (CFG).
    """

    prompt: str = ""
    steps: int = 20
    guidance: float = 5.0

    def judgements(self) -> list[Judgement]:
        """The rules of single keys."""
        return [at_least(self, "steps", 1), at_least(self, "guidance", 0)]
