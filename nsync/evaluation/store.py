"""Vectors on the disk, so that a picture goes through an encoder once.

A folder per encoder, weights, preprocessing and precision; in it any number of safetensors files,
each with some pictures' vectors under the sha256 of their pixels. A file is written once, whole,
under a name of its own, and never changed: so any number of processes may write, and none can
spoil another's.
"""

import hashlib
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import atomic_path
from .encoders import Encoder, OnItem

logger = logging.getLogger(__name__)

CHUNK = 64
"""Pictures between two writings: what an interrupted run loses at most."""


def pixel_hash(picture: Tensor) -> str:
    """sha256 in hex of uint8 pixels `[3, h, w]`, their size included."""
    digest = hashlib.sha256(repr(tuple(picture.shape)).encode())
    digest.update(picture.contiguous().numpy())
    return digest.hexdigest()


def encode_stored(
    encoder: Encoder, pictures: Sequence[Tensor], folder: Path, on_item: OnItem | None = None
) -> Tensor:
    """`encoder.encode(pictures)`, but only for pictures whose vectors are not stored yet.

    A stored file that is damaged is ignored with a warning and taken away; where nothing can be
    written, that is a warning too.

    Args:
        encoder: see `Encoder`; its weights, preprocessing and precision are part of the key.
        pictures: uint8 `[3, h, w]`, any sizes; equal ones are encoded once.
        folder: of the whole store; made if missing.
        on_item: called before each picture that is encoded, with (done, pictures to encode).

    Returns:
        float32 `[n, width]` in main memory.
    """
    place = Path(folder) / _key(encoder)
    names = [pixel_hash(picture) for picture in pictures]
    known = _stored(place, encoder.width)
    new = {name: one for name, one in zip(names, pictures, strict=True) if name not in known}
    for start in range(0, len(new), CHUNK):
        part = dict(list(new.items())[start : start + CHUNK])
        report = _shifted(on_item, start, len(new))
        vectors = encoder.encode(list(part.values()), report)
        fresh = {name: row.clone() for name, row in zip(part, vectors, strict=True)}
        known |= fresh
        _write(place, fresh)
    rows = [known[name] for name in names]
    return torch.stack(rows) if rows else torch.empty(0, encoder.width)


def _key(encoder: Encoder) -> str:
    way = encoder.preprocessing.replace("/", "-")
    return f"{encoder.name}-{way}-{encoder.precision}-{encoder.identity[:32]}"


def _stored(place: Path, width: int) -> dict[str, Tensor]:
    known: dict[str, Tensor] = {}
    for path in sorted(place.glob("*.safetensors")):
        try:
            vectors = load_file(path)
        except FileNotFoundError:  # another process found it damaged first
            continue
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("Stored vectors in %s are damaged and not used: %s", path, error)
            _remove(path)
            continue
        known |= {name: row for name, row in vectors.items() if _is_vector(row, width)}
    return known


def _is_vector(row: Tensor, width: int) -> bool:
    return row.shape == (width,) and row.dtype == torch.float32 and bool(row.isfinite().all())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s cannot be removed: %s", path, error)


def _write(place: Path, vectors: dict[str, Tensor]) -> None:
    try:
        with atomic_path(place / f"{uuid.uuid4().hex}.safetensors") as temporary:
            save_file(vectors, temporary)
    except InputError as error:
        logger.warning("Vectors are not stored: %s", error.got)


def _shifted(on_item: OnItem | None, start: int, total: int) -> OnItem | None:
    """Progress over all parts from the progress in one."""
    return on_item and (lambda done, _: on_item(start + done, total))
