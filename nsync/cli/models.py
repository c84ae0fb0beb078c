"""The model that a command is given, loaded without a network."""

import warnings

import torch

from ..errors import InputError
from ..tiny import BASE_FOLDER
from .sections import AUTO, Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_denoiser(model: Model) -> "DiffusersDenoiser":  # noqa: F821 - imported when it is loaded
    """The model as a `Denoiser`.

    Raises:
        InputError: no such model, one that lacks files, or of a kind that is not trained here.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from ..pipelines import load

    device = device_of(model.device, "model.device")
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    path = BASE_FOLDER if model.is_tiny else model.path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own, about themselves
            return load(path, model.config, dtype=DTYPES[model.weights], device=device)
    except InputError as error:
        key = f"model.{error.name}"
        raise InputError(key, error.expected, error.got, error.remedy) from error


def device_of(name: str, key: str) -> torch.device:
    """The device of this name.

    Args:
        key: where it is given, for errors.

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
        expected = "a device that is there"
        raise InputError(key, expected, f"{name!r} ({reason})") from error
    return device
