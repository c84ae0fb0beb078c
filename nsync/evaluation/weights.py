"""Reading weight files of strangers: tensors and nothing else.

A pickle can run code, so it is read with torch's weights-only unpickler and a short list of
harmless types, once; then it lies beside the original as safetensors, which cannot.
"""

import argparse
import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import atomic_path

_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
_WRAPPERS = ("model_state_dict", "state_dict")  # what training checkpoints call the model's part

# CSD's published file is a training checkpoint: its settings and its best scores came along.
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED = [
    argparse.Namespace,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 wrote it
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
]

RULE = "a weight file: .safetensors, or .bin, .pt, .pth or .ckpt with nothing but weights"


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file by their names in it, in main memory, and notes for the user.

    A pickle is converted on the way: beside `x.bin` lies `x.bin.safetensors` from then on, and is
    read in its place as long as the original is the same.

    Raises:
        InputError: no such file, another kind of file, a damaged one, or a pickle that holds more
            than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path.name, RULE, "no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), ()
    if path.suffix not in _PICKLES:
        raise InputError(path.name, RULE, f"a file that ends in {path.suffix!r}")
    converted = path.with_name(path.name + ".safetensors")
    if _is_conversion(converted, path):
        return _read_safetensors(converted), ()
    tensors = _state(_unpickled(path), path)
    return tensors, (_convert(tensors, path, converted),)


def identity(tensors: Mapping[str, Tensor]) -> str:
    """sha256 in hex over names, shapes, types and bytes of the tensors, whatever their container.

    So a file and its conversion are one encoder, and vectors of the one serve the other.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        got = f"a file that is none, or a damaged one ({error})"
        raise InputError(path.name, "safetensors", got, "Get it again.") from error


def _is_conversion(converted: Path, source: Path) -> bool:
    try:
        with safe_open(converted, "pt") as file:
            metadata = file.metadata()
    except (SafetensorError, OSError):
        return False
    return metadata == _metadata(source)


def _metadata(source: Path) -> dict[str, str]:
    """What a conversion says of its source, and what no longer fits once that was replaced."""
    status = source.stat()
    return {
        "source": source.name,
        "source_bytes": str(status.st_size),
        "source_time": str(status.st_mtime_ns),
    }


def _unpickled(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped and _is_program(path):
        raise _unloadable(path, "a TorchScript program")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            # Mapped, the optimizer's half of a training checkpoint is never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _unloadable(path, f"one that does not load: {reason}") from error


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unloadable(path: Path, got: str) -> InputError:
    remedy = "Only plain weights are read, no programs: take the publisher's file of weights."
    return InputError(path.name, RULE, got, remedy)


def _state(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The model's part of what was loaded."""
    if isinstance(loaded, dict):
        for wrapper in _WRAPPERS:
            loaded = loaded.get(wrapper, loaded)
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return dict(loaded)
    got = f"a {type(loaded).__name__} of other things"
    raise InputError(path.name, "tensors by name", got)


def _convert(tensors: dict[str, Tensor], source: Path, target: Path) -> str:
    """Write the conversion, and say so; a folder that cannot be written to is no obstacle."""
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_path(target) as temporary:
            save_file(plain, temporary, _metadata(source))
    except InputError as error:
        return f"{source.name} is read as a pickle each time: {error.got}"
    return f"{target.name} was written beside {source.name} and is read from now on"
