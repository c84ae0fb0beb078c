"""A trained embedding's file, read for a model of these text encoders."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .denoiser import Denoiser
from .errors import InputError


def read_embedding(file: Path, denoiser: Denoiser) -> dict[str, Tensor]:
    """Vectors float32 `[vectors, width]` by text encoder.

    One tensor alone is of the only text encoder, whatever its name; see
    `nsync.checkpoint.embedding_tensors`.

    Raises:
        InputError: no embedding, or one of other text encoders.
    """
    widths = {name: rows.shape[1] for name, rows in denoiser.word_vectors("a").items()}
    try:
        tensors = {name: value.float() for name, value in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        got = f"{file.name}, which cannot be read ({error})"
        raise InputError("embeddings", "embeddings in safetensors files", got) from error
    if len(widths) == len(tensors) == 1:
        tensors = dict(zip(widths, tensors.values(), strict=True))
    found = {name: value.shape[1:] for name, value in tensors.items()}
    if found != {name: (width,) for name, width in widths.items()}:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
        wanted = ", ".join(f"{name} [vectors, {width}]" for name, width in widths.items())
        raise InputError(
            "embeddings", f"embeddings of {wanted}", f"{file.name} with {shapes[:200]}"
        )
    return tensors
