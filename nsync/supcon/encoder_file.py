"""Encoders in one safetensors file: every tensor, and in the metadata what they are made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ..draws import seeded
from ..errors import InputError
from ..files import write_atomic
from .clip_encoders import ClipEncoders
from .described_file import check_tensors, read_described
from .encoders import Encoders
from .small_encoders import SmallEncoders

KINDS: dict[str, type[Encoders]] = {one.kind: one for one in (SmallEncoders, ClipEncoders)}

VERSION = 1
_ENCODERS = "nsync.encoders"
_RULE = "encoders saved by the SupCon pretraining (a .safetensors file)"
_NOTHING = "a safetensors file that says nothing of encoders", "Is it a LoRA, or a model?"


def save_encoders(
    path: Path,
    encoders: Encoders,
    *,
    title: str,
    training: Mapping[str, Any] | None = None,
    learned: Mapping[str, Tensor] | None = None,
) -> None:
    """Write encoders, whole or not at all.

    Args:
        title: what the file says of itself to a person.
        training: what they were trained with, as JSON values.
        learned: tensors that stand for those of the same names.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    told = {
        "version": VERSION,
        "kind": encoders.kind,
        "config": encoders.config,
        "training": dict(training or {}),
    }
    tensors = {name: value.detach().cpu() for name, value in encoders.state_dict().items()}
    tensors |= dict(learned or {})
    metadata = {_ENCODERS: json.dumps(told), "modelspec.title": title}
    kept = {name: value.contiguous() for name, value in tensors.items()}
    write_atomic(path, save(kept, metadata=metadata))


def load_encoders(path: Path) -> Encoders:
    """The encoders in a file, on the CPU, in evaluation mode.

    Raises:
        InputError: no such file, none of encoders, of a version that this one cannot read, or one
            whose tensors are not those that it says it has.
    """
    told, tensors = _read(path)
    if told.get("version") != VERSION:
        raise InputError(
            path.name,
            f"encoders in version {VERSION} of their file format",
            f"version {told.get('version')!r}",
            "Update this pack, or train the encoders again.",
        )
    if told.get("kind") not in KINDS:
        got = repr(told.get("kind"))
        raise InputError(path.name, f"encoders of a kind in {', '.join(KINDS)}", got)
    try:
        with seeded(0, "weights that are replaced"):
            encoders = KINDS[told["kind"]].from_config(told["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path.name, _RULE, f"a configuration that is none: {error}") from error
    check_tensors(path, "the tensors of its encoders", encoders.state_dict(), tensors)
    encoders.load_state_dict(tensors)
    return encoders.eval()


def encoders_metadata(path: Path) -> dict[str, Any]:
    """What a file of encoders says of itself: `version`, `kind`, `config`, `training`.

    Raises:
        InputError: no such file, or none of encoders.
    """
    return _read(path, tensors=False)[0]


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_described(path, _ENCODERS, _RULE, _NOTHING, tensors)
