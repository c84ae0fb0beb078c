"""Pipelines from the disk: a folder as diffusers saves it, or a single file. Nothing is fetched,
and nothing is unpickled.

A single file holds weights alone. What else a pipeline consists of (configurations, tokenizers,
the noise schedule) is taken from a folder that the user names; or, of bases that the file's shapes
tell, from this package (`known`); or from the base that diffusers knows the file's family by, where
that lies in the local cache of the Hugging Face hub.
"""

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from ..errors import InputError
from .denoiser import FAMILIES, DiffusersDenoiser
from .family import Family
from .known import clip_tokenizer, clip_words, known_base

_T = TypeVar("_T")

_INDEX = "model_index.json"
_UNUSED = {  # what some pipelines have and nothing here reads
    "safety_checker": None,
    "feature_extractor": None,
    "image_encoder": None,
    "requires_safety_checker": False,
    "add_watermarker": False,
}
_CLASSES = (AutoencoderKL, CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel)
_WORDS = ("tokenizer.json", "vocab.json", "spiece.model")  # any of them makes a tokenizer
_WEIGHTS = re.compile(r"\w+(?:\.(\w+))?(?:-\d{5}-of-\d{5})?\.safetensors")
_SMALL = ["*.json", "*.txt", "*.model"]
_FAILURES = (
    OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError, AttributeError, ImportError,
    NotImplementedError, SafetensorError,
)  # fmt: skip


def load(
    path: Path | str,
    config: Path | str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DiffusersDenoiser:
    """The model in a pipeline's folder or in a single .safetensors file.

    Args:
        path: of the folder or the file.
        config: for a single file, a folder laid out like the pipeline's: `model_index.json`,
            configurations, tokenizers, and the weights of those parts that the file lacks.
        dtype: of all weights.
        device: where they are put.

    Raises:
        InputError: no pipeline of a family that is trained here, or a part of it is missing,
            unreadable, of another family, or a pickle; the error says which, and where it belongs.
    """
    path = Path(path)
    if path.is_dir():
        family, options = _from_folder(path)
        build, options["use_safetensors"] = family.kind.from_pretrained, True
    else:
        family, options = _from_file(path, Path(config) if config else None, dtype)
        build = family.kind.from_single_file
    options |= {"torch_dtype": dtype, "local_files_only": True}
    pipeline = _loaded(path, partial(build, str(path), **options))
    _check_whole(path, family, pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return DiffusersDenoiser(pipeline.to(device))


def _from_folder(folder: Path) -> tuple[type[Family], dict[str, Any]]:
    """The family, and what is given to its constructor."""
    index = _index("path", folder)
    family = _family_of("path", folder, index)
    parts, given = _parts(family, index)
    _check_files("path", folder, parts, weights=set(family.inside))
    return family, {**_unused(family), **given, "variant": _variant(folder, family.inside)}


def _variant(folder: Path, parts: Iterable[str]) -> str | None:
    """What stands in the names of a part's weights ("fp16"), where it has no others."""
    for part in parts:
        names = [path.name for path in (folder / part).glob("*.safetensors")]
        found = {match[1] for name in names if (match := _WEIGHTS.fullmatch(name))}
        if found and None not in found:
            return min(found)
    return None


def _from_file(
    file: Path, config: Path | None, dtype: torch.dtype
) -> tuple[type[Family], dict[str, Any]]:
    """The family, and what is given to its constructor: all that the file does not hold."""
    shapes = _shapes(file)
    config, words = _configuration(file, shapes, config)
    index = _index("config", config)
    family = _family_of("config", config, index)
    inside = family.inside.items()
    held = {part for part, starts in inside if any(key.startswith(starts) for key in shapes)}
    if family.parts[0] not in held:
        names = " or ".join(f"{start}..." for start in family.inside[family.parts[0]])
        raise InputError(
            "path",
            f"a checkpoint with the network of a {family.kind.__name__}, as {config} has it",
            f"{file.name}, which has no weights named {names}",
            "Is it a LoRA, or of another family?",
        )
    parts, given = _parts(family, index)
    if words:
        tokenizers = [part for part in parts if part.startswith("tokenizer")]
        given |= {part: _loaded(words, partial(clip_tokenizer, words, part)) for part in tokenizers}
    rest = [part for part in parts if part not in given]
    _check_files("config", config, rest, weights=set(family.inside) - held)
    lacking = [part for part in parts if part in family.inside and part not in held]
    given |= {part: _part(config, part, index, dtype) for part in lacking}
    return family, {"config": str(config), **_unused(family), **given}


def _shapes(file: Path) -> dict[str, torch.Tensor]:
    """The file's tensors without their values."""
    if not file.is_file():
        raise InputError("path", "a pipeline's folder or a file that is there", str(file))
    if file.suffix != ".safetensors":
        remedy = "A pickle can run programs: convert it to safetensors first."
        raise InputError("path", "a .safetensors file", file.name, remedy)
    try:
        with safe_open(file, "pt") as opened:
            shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        got = f"{file.name}, which cannot be read ({error})"
        raise InputError("path", "a whole .safetensors file", got) from error
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _configuration(
    file: Path, shapes: dict[str, torch.Tensor], config: Path | None
) -> tuple[Path, Path | None]:
    """The folder with the configuration, and that of CLIP's tokenizer where it is another."""
    base = known_base(shapes)
    if base is None or (config and (config / _INDEX).is_file()):
        return config or _cached_config(file, shapes), None
    if words := clip_words(config):
        return base, words
    if config is None and (cached := _cached(_hub_name(shapes))):
        return cached, None
    raise InputError(
        "config",
        "a folder with CLIP's tokenizer, tokenizer/vocab.json and tokenizer/merges.txt (what else "
        f"{file.name} needs is known)",
        str(config) if config else "none",
        "ComfyUI has these two files in comfy/sd1_tokenizer: COMFYUI_PATH may name its folder.",
    )


def _hub_name(shapes: dict[str, torch.Tensor]) -> str:
    return fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]


def _cached(base: str) -> Path | None:
    """What the local cache of the hub has of a base, without its weights."""
    try:
        return Path(snapshot_download(base, local_files_only=True, allow_patterns=_SMALL))
    except LocalEntryNotFoundError:
        return None


def _cached_config(file: Path, shapes: dict[str, torch.Tensor]) -> Path:
    base = _hub_name(shapes)
    found = _cached(base)
    if found is None:
        raise InputError(
            "config",
            f"a folder with the configuration of {file.name}: {_INDEX}, and a folder for each part "
            "that it names, with config.json, scheduler_config.json or the tokenizer's files in it",
            f"none, and {base} is not in the local Hugging Face cache",
            "They are the small files of the base's diffusers folder, all but its weights.",
        )
    return found


def _index(name: str, folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text())
        if not isinstance(index, dict):
            raise ValueError(f"{_INDEX} is no object")
    except (OSError, ValueError) as error:
        told = "without one" if not (folder / _INDEX).is_file() else f"in which it is bad ({error})"
        raise InputError(
            name,
            f"a diffusers pipeline's folder, with {_INDEX} in it",
            f"{folder}, {told}",
            "Give the folder that holds the network, the autoencoder and the text encoders.",
        ) from error
    return index


def _family_of(name: str, folder: Path, index: dict[str, Any]) -> type[Family]:
    kinds = {family.kind.__name__: family for family in FAMILIES}
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in kinds:
        expected = f"a pipeline of the class {', '.join(kinds)}"
        raise InputError(name, expected, f"{folder}, of the class {kind!r}")
    return kinds[kind]


def _parts(family: type[Family], index: dict[str, Any]) -> tuple[list[str], dict[str, None]]:
    """The parts that must be there, and None for those that this pipeline goes without."""

    def is_named(part: str) -> bool:
        found = index.get(part)  # a library and a class; two nulls for a part that was left out
        return isinstance(found, list) and len(found) == 2 and isinstance(found[1], str)

    absent = [part for part in family.optional if not is_named(part)]
    return [part for part in family.parts if part not in absent], dict.fromkeys(absent)


def _check_files(name: str, folder: Path, parts: Collection[str], weights: Collection[str]) -> None:
    """Raise one `InputError` that names every file that is missing.

    Args:
        weights: the parts whose weights must be there.
    """
    missing = []
    for part in parts:
        if part.startswith("tokenizer"):
            if not any((folder / part / file).is_file() for file in _WORDS):
                missing.append(f"{part}/{' or '.join(_WORDS)}")
            continue
        settings = "scheduler_config.json" if part == "scheduler" else "config.json"
        if not (folder / part / settings).is_file():
            missing.append(f"{part}/{settings}")
        if part in weights and not any((folder / part).glob("*.safetensors")):
            missing.append(f"{part}/*.safetensors")
    if missing:
        raise InputError(
            name,
            f"a folder that holds all of {', '.join(parts)}",
            f"{folder}, without {', '.join(missing)}",
            "Weights are read from safetensors files only.",
        )


def _part(config: Path, part: str, index: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A part that the single file lacks, from the configuration's folder."""
    kinds, kind = {one.__name__: one for one in _CLASSES}, index[part][1]
    if kind not in kinds:
        raise InputError("config", f"{part} of the class {' or '.join(kinds)}", repr(kind))
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": True}
    place = config / part
    return _loaded(place, partial(kinds[kind].from_pretrained, str(place), **options))


def _unused(family: type[Family]) -> dict[str, Any]:
    taken = inspect.signature(family.kind.__init__).parameters
    return {name: value for name, value in _UNUSED.items() if name in taken}


def _loaded(path: Path, build: Callable[[], _T]) -> _T:
    try:
        return build()
    except _FAILURES as error:
        reason = " ".join(str(error).split())[:300]
        told = f"{path}, which cannot be ({type(error).__name__}: {reason})"
        raise InputError("path", "weights that can be loaded", told) from error


def _check_whole(path: Path, family: type[Family], pipeline: DiffusionPipeline) -> None:
    """Raise `InputError` if a part was built and found no weights."""
    for part in family.inside:
        module = getattr(pipeline, part)
        empty = [] if module is None else [n for n, v in module.named_parameters() if v.is_meta]
        if empty:
            raise InputError(
                "path",
                f"all weights of the {part} that its configuration asks for",
                f"{path}, without {len(empty)}, such as {empty[0]}",
                "Is the configuration that of another base?",
            )
