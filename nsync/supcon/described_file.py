"""Reading a safetensors file that says of itself, as JSON in its metadata, what it is made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError

DAMAGED = "The file is damaged or was changed: save it again."


def read_described(
    path: Path, key: str, rule: str, nothing: tuple[str, str], tensors: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of itself, and its tensors in main memory by name.

    Args:
        key: of the description in the metadata.
        rule: what file is expected, for errors.
        nothing: what a file without such a description is, and what to do, for errors.
        tensors: read them; else there are none.

    Raises:
        InputError: no such file, or none with such a description.
    """
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get(key, "null"))
            names = list(file.keys()) if tensors else []
            # Copies: Windows would not let go of a file of which a tensor is still a map.
            found = {name: file.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(path.name, rule, f"{type(error).__name__}: {error}") from error
    if not isinstance(told, dict):
        raise InputError(path.name, rule, *nothing)
    return told, found


def check_tensors(
    path: Path, rule: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> None:
    """Refuse tensors that are not, name by name and shape by shape, those that are wanted.

    Raises:
        InputError: it counts what is missing, left over, or of another shape.
    """
    lacking, left = (sorted(a.keys() - b.keys()) for a, b in ((wanted, found), (found, wanted)))
    shared = wanted.keys() & found.keys()
    other = sorted(name for name in shared if wanted[name].shape != found[name].shape)
    kinds = {"missing": lacking, "left over": left, "of another shape": other}
    problems = [
        f"{len(names)} {kind}, such as {names[0]}" for kind, names in kinds.items() if names
    ]
    if problems:
        raise InputError(path.name, rule, "; ".join(problems), DAMAGED)
