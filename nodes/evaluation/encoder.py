"""The Load Style Encoder node: what pictures are judged by, from the user's own weight files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import comfy.model_management as management
import comfy.sd1_clip
import folder_paths
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import io
from torch import Tensor

from ...nsync.errors import InputError
from ...nsync.evaluation import catalogue
from ...nsync.evaluation.catalogue import CLIP_FOLDER, STYLE_FOLDER
from ...nsync.evaluation.encoders import ClipEncoder, NetworkEncoder, OnItem
from ...nsync.evaluation.loading import NAMES, load_encoder
from ..sockets import EncodersSocket

PUBLISHED, NOTHING = "(published file)", "nothing"
OWN, PAPER = "the metric's own", "as the NSYNC paper"

_TEXT_FOLDER = "text_encoders"
_BOTH_RULERS = {"ruler": ("ruler", "ruler-content")}


def register_folder() -> None:
    """Tell the host of the model folder of style encoders."""
    place = Path(folder_paths.models_dir) / STYLE_FOLDER
    folder_paths.add_model_folder_path(STYLE_FOLDER, str(place), is_default=True)


class LoadStyleEncoder(io.ComfyNode):
    """`NSYNC_LoadStyleEncoder`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSYNC_LoadStyleEncoder",
            display_name="Load Style Encoder",
            category="NSYNC",
            description="A network that judges pictures: CSD for style; CLIP, DINOv2, Inception "
            "and SSCD for prompts, content, set scores and copies; the ruler for the tiny base, "
            "which needs no file. Several are chained. Nothing is downloaded unless asked for.",
            search_aliases=["csd", "clip vision", "dinov2", "fid", "kid", "cmmd", "sscd"],
            inputs=_inputs(),
            outputs=[
                EncodersSocket.Output(
                    display_name="encoders", tooltip="For Style Evaluator, or for the next one."
                ),
                io.String.Output(display_name="report", tooltip="What was loaded, and its hash."),
            ],
        )

    @classmethod
    def execute(
        cls,
        encoder: str,
        file: str,
        download: bool,
        preprocessing: str,
        precision: str,
        text_file: str,
        encoders: Sequence["HostEncoder"] = (),
    ) -> io.NodeOutput:
        names = _BOTH_RULERS.get(encoder, (encoder,))
        path = None if encoder == "ruler" else _file(encoder, file, download)
        halves = precision == "fp16" and not encoder.startswith("inception")
        half = torch.float16 if halves else torch.float32
        paper = preprocessing == PAPER
        loaded = tuple(HostEncoder(_load(name, path, text_file, paper), half) for name in names)
        report = "\n".join(line for one in loaded for line in (one.name, *one.notes))
        return io.NodeOutput((*encoders, *loaded), report)


class HostEncoder:
    """An encoder that is on the host's device while it works, and in main memory otherwise.

    Args:
        dtype: of its arithmetic on a GPU; float32 on a CPU in any case.
    """

    def __init__(self, encoder: NetworkEncoder, dtype: torch.dtype) -> None:
        self._encoder, self._device = encoder, management.get_torch_device()
        self._dtype = torch.float32 if self._device.type == "cpu" else dtype
        self.precision = "fp16" if self._dtype == torch.float16 else "fp32"
        self.name, self.identity = encoder.name, encoder.identity
        self.preprocessing, self.width = encoder.preprocessing, encoder.width
        self.notes = encoder.notes

    @property
    def reads_texts(self) -> bool:
        """Whether `encode_texts` works."""
        return isinstance(self._encoder, ClipEncoder) and self._encoder.reads_texts

    def encode(self, pictures: Sequence[Tensor], on_item: OnItem | None = None) -> Tensor:
        """See `nsync.evaluation.encoders.Encoder`."""
        return self._working(lambda encoder: encoder.encode(pictures, on_item))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """See `nsync.evaluation.encoders.ClipEncoder`."""
        return self._working(lambda encoder: encoder.encode_texts(texts))

    def probabilities(self, features: Tensor) -> Tensor:
        """See `nsync.evaluation.encoders.InceptionEncoder`."""
        return self._encoder.probabilities(features)

    def _working(self, work: Callable[[NetworkEncoder], Tensor]) -> Tensor:
        with torch.inference_mode(False):
            if self._device.type == "cpu":
                return work(self._encoder)
            # Twice the weights: activations need room as well.
            management.free_memory(2 * self._encoder.nbytes, self._device)
            try:
                self._encoder.to(self._device, self._dtype)
                return work(self._encoder)
            finally:
                self._encoder.to("cpu")
                management.soft_empty_cache()


def _file(encoder: str, file: str, fetch: bool) -> Path:
    """The weight file that was chosen.

    Raises:
        InputError: the published file is not there; the error names it and its place.
    """
    if file != PUBLISHED:
        folder, _, name = file.partition("/")
        found = folder_paths.get_full_path(folder, name)
        if found is None:
            raise InputError("file", f"a file in the model folder {folder}", repr(name))
        return Path(found)
    folders = [
        Path(place)
        for key in (STYLE_FOLDER, CLIP_FOLDER)
        for place in folder_paths.get_folder_paths(key)
    ]
    try:
        return catalogue.locate(encoder, folders)
    except InputError:
        if not fetch:
            raise
    bar = ProgressBar(1)
    return catalogue.download(
        encoder, folders[0], lambda done, total: bar.update_absolute(done, total or done)
    )


def _load(name: str, path: Path | None, text_file: str, as_paper: bool) -> NetworkEncoder:
    """The encoder; CLIP with its text tower, where one is there or named."""
    if not name.startswith("clip"):
        return load_encoder(name, path, as_paper=as_paper)
    words = {"tokenizer": _tokenizer(), "text_file": _text_file(text_file)}
    try:
        return load_encoder(name, path, as_paper=as_paper, **words)
    except InputError:
        if text_file != NOTHING:
            raise
        return load_encoder(name, path, as_paper=as_paper)  # the file's vision tower alone


def _text_file(name: str) -> Path | None:
    if name == NOTHING:
        return None
    return Path(folder_paths.get_full_path_or_raise(_TEXT_FOLDER, name))


def _tokenizer() -> Path:
    """CLIP's, which the host has with it."""
    return Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"


def _inputs() -> list[io.Input]:
    files = [
        f"{folder}/{name}"
        for folder in (STYLE_FOLDER, CLIP_FOLDER)
        for name in folder_paths.get_filename_list(folder)
    ]
    return [
        io.Combo.Input(
            "encoder",
            options=[name for name in NAMES if name != "ruler-content"],
            tooltip="csd: style. clip-l-14: prompts, and a control beside CSD. clip-l-14-336: "
            "CMMD. dinov2: content, diversity, drift. inception: FID and KID. "
            "inception-imagenet: FID and KID as the NSYNC paper has them. sscd: copies. "
            "ruler: style and content in pictures of the tiny base, without a file.",
        ),
        io.Combo.Input(
            "file",
            options=[PUBLISHED, *files],
            tooltip=f"Weights, from models/{STYLE_FOLDER} or models/{CLIP_FOLDER}. The published "
            "file is looked for under its published name.",
        ),
        io.Boolean.Input(
            "download",
            default=False,
            tooltip="Where the published file is not there: download it to "
            f"models/{STYLE_FOLDER} (0.1 to 2.4 GB), instead of saying what to get from where.",
        ),
        io.Combo.Input(
            "preprocessing",
            options=[OWN, PAPER],
            advanced=True,
            tooltip="As each metric defines it; or after a resize to 256 x 256, for numbers that "
            "compare with the NSYNC paper's.",
        ),
        io.Combo.Input(
            "precision",
            options=["fp32", "fp16"],
            advanced=True,
            tooltip="Arithmetic on a GPU; fp16 is faster and moves scores by about 0.001.",
        ),
        io.Combo.Input(
            "text_file",
            options=[NOTHING, *folder_paths.get_filename_list(_TEXT_FOLDER)],
            advanced=True,
            tooltip="For CLIP: a text encoder of the same CLIP with its projection, to judge "
            "whether pictures follow their prompts. Not needed where the file has both.",
        ),
        EncodersSocket.Input(
            "encoders", optional=True, tooltip="More encoders, from another one of these nodes."
        ),
    ]
