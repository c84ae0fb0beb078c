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
from ..processes import ONE, Processes
from .encoders import BATCH, Encoder, OnItem

logger = logging.getLogger(__name__)

CHUNK = 2 * BATCH
"""Pictures between two writings: what an interrupted run loses at most, and what processes share
the pictures by."""


def pixel_hash(picture: Tensor) -> str:
    """sha256 in hex of uint8 pixels `[3, h, w]`, their size included."""
    digest = hashlib.sha256(repr(tuple(picture.shape)).encode())
    digest.update(picture.contiguous().numpy())
    return digest.hexdigest()


def encode_stored(
    encoder: Encoder,
    pictures: Sequence[Tensor],
    folder: Path,
    on_item: OnItem | None = None,
    processes: Processes = ONE,
) -> Tensor:
    """`encoder.encode(pictures)`, but only for pictures whose vectors are not stored yet.

    A stored file that is damaged is ignored with a warning and taken away; where nothing can be
    written, that is a warning too.

    Args:
        encoder: see `Encoder`; its weights, preprocessing and precision are part of the key.
        pictures: uint8 `[3, h, w]`, any sizes; equal ones are encoded once.
        folder: of the whole store; made if missing.
        on_item: called before each picture that is encoded, with (done, pictures to encode); of
            several processes each counts its own.
        processes: that make this call together, on the same pictures, each encoding a share.

    Returns:
        float32 `[n, width]` in main memory, the same bits whatever the number of processes.

    Raises:
        InputError, OutOfMemoryError: as `encoder.encode`.
        ProcessLostError: another process has stopped.
    """
    place = Path(folder) / _key(encoder)
    names = [pixel_hash(picture) for picture in pictures]
    processes.check_same("pictures", " ".join([place.name, *names]))
    if not names:
        return torch.empty(0, encoder.width)
    unique = dict(zip(names, pictures, strict=True))
    known = _stored(place, encoder.width) if processes.is_lead else {}
    is_new = processes.told([name not in known for name in unique])
    new = [name for name, missing in zip(unique, is_new, strict=True) if missing]
    found = {name: known[name] for name in unique if name in known}
    found |= _encoded(encoder, {name: unique[name] for name in new}, place, on_item, processes)
    # Each vector is one process's, and zero with the others: their sum is exact.
    nothing = torch.zeros(encoder.width)
    rows = torch.stack([found.get(name, nothing) for name in unique])
    (rows,) = processes.summed([rows])
    order = {name: row for row, name in enumerate(unique)}
    return rows[[order[name] for name in names]]


def _encoded(
    encoder: Encoder,
    pictures: dict[str, Tensor],
    place: Path,
    on_item: OnItem | None,
    processes: Processes,
) -> dict[str, Tensor]:
    """Vectors of this process's share of the pictures, stored as they come.

    The share is of whole chunks: in another batch a picture's vector may differ in its last bits.
    """
    names, found = list(pictures), {}
    mine = processes.mine([names[at : at + CHUNK] for at in range(0, len(names), CHUNK)])
    total = sum(map(len, mine))
    for chunk in mine:
        report = _shifted(on_item, len(found), total)
        vectors = encoder.encode([pictures[name] for name in chunk], report)
        fresh = {name: row.clone() for name, row in zip(chunk, vectors, strict=True)}
        found |= fresh
        _write(place, fresh)
    return found


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
