"""The model that a command is given, loaded without a network."""

import logging
import warnings
from pathlib import Path

import torch

from ..errors import InputError
from ..tiny import BASE_FOLDER
from .sections import AUTO, Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TINY = "tiny"

_CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
)
"""What a single file does not hold of a pipeline."""


def load_denoiser(model: Model) -> "DiffusersDenoiser":  # noqa: F821 - imported when it is loaded
    """The model as a `Denoiser`.

    Raises:
        InputError: no such model, one that lacks files, or of a kind that is not trained here.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from ..pipelines.denoiser import DiffusersDenoiser

    device = device_of(model.device)
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own, about themselves
        pipeline = _pipeline(model).to(device, DTYPES[model.weights])
    pipeline.set_progress_bar_config(disable=True)
    return DiffusersDenoiser(pipeline)


def device_of(name: str) -> torch.device:
    """The device that a key names.

    Raises:
        InputError: torch knows none of this name, or cannot compute there.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "model.device", "a device that is there", f"{name!r} ({reason})"
        ) from error
    return device


def _pipeline(model: Model) -> "DiffusionPipeline":  # noqa: F821 - likewise
    from diffusers import DiffusionPipeline

    path = model.path
    if not path.exists() and path.name == TINY:
        path = BASE_FOLDER
    options = {"torch_dtype": DTYPES[model.weights], "local_files_only": True}
    try:
        if path.is_dir():
            _check_folder(path)
            return DiffusionPipeline.from_pretrained(path, use_safetensors=True, **options)
        return _single(path, model.config, options)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        logging.getLogger(__name__).debug("loading failed", exc_info=True)
        reason = " ".join(str(error).split())[:300]
        expected = "a model of Stable Diffusion 1, 2 or XL that can be loaded"
        raise InputError(
            "model.path", expected, f"{path} ({type(error).__name__}: {reason})"
        ) from error


def _check_folder(path: Path) -> None:
    if not (path / "model_index.json").is_file():
        raise InputError(
            "model.path",
            "a diffusers pipeline's folder, with model_index.json in it",
            f"{path}, without one",
            "Give the folder that holds unet, vae, text_encoder and tokenizer.",
        )


def _single(path: Path, config: Path | None, options: dict) -> "DiffusionPipeline":  # noqa: F821
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    if not path.is_file():
        raise InputError("model.path", "a folder or a file that is there", str(path))
    if path.suffix != ".safetensors":
        remedy = "A pickle can run programs: convert it to safetensors first."
        raise InputError("model.path", "a .safetensors file", path.name, remedy)
    missing = [name for name in _CONFIGS if config is None or not (config / name).is_file()]
    if missing:
        place = "which `model.config` has to name" if config is None else f"in {config}"
        raise InputError(
            "model.config",
            f"the configuration of {path.name}, {place}: {', '.join(_CONFIGS)}",
            "none" if config is None else f"no {', '.join(missing)}",
            "They are the small files of the base's diffusers folder, all but its weights.",
        )
    double = (config / "text_encoder_2/config.json").is_file()
    kind = StableDiffusionXLPipeline if double else StableDiffusionPipeline
    return kind.from_single_file(str(path), config=str(config), **options)
