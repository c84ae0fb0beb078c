"""The exported LoRA and embedding: safetensors files that ComfyUI and diffusers read, and what they
say of themselves.

Keys of a LoRA are kohya's, `<name>.lora_down.weight`, `<name>.lora_up.weight`, `<name>.alpha`, of
which readers add `alpha / rank * up @ down`; or, where a layer's name is diffusers' own, PEFT's
`<name>.lora_A.weight` and `<name>.lora_B.weight`, of which they add `B @ A`. Who knows the base's
naming gives the names.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from .errors import InputError
from .files import numbered, write_atomic
from .learner import Learned
from .trained import EMBEDDING, LORA

_DIFFUSERS = ("transformer.", "text_encoder.", "text_encoder_2.")  # how its names begin


def lora_tensors(
    weights: Mapping[str, Tensor], names: Mapping[str, str], alphas: Mapping[str, float]
) -> dict[str, Tensor]:
    """Trained adapters as a LoRA file's tensors.

    Args:
        weights: `<layer>.lora_A` `[rank, inputs, ...]` and `<layer>.lora_B` `[outputs, rank, ...]`.
        names: the file's name of each layer.
        alphas: the constant that each layer's adapter was trained with.
    """
    tensors = {}
    for path in dict.fromkeys(key.rpartition(".")[0] for key in weights):
        write = _peft if names[path].startswith(_DIFFUSERS) else _kohya
        down, up = weights[f"{path}.lora_A"].contiguous(), weights[f"{path}.lora_B"].contiguous()
        tensors |= write(names[path], down, up, float(alphas[path]))
    return tensors


def _kohya(name: str, down: Tensor, up: Tensor, alpha: float) -> dict[str, Tensor]:
    factors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    return {**factors, f"{name}.alpha": torch.tensor(alpha)}


def _peft(name: str, down: Tensor, up: Tensor, alpha: float) -> dict[str, Tensor]:
    # The scale goes into a factor: diffusers' reader for SD3 refuses a file that tells an alpha.
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * (alpha / len(down))}


def embedding_tensors(vectors: Mapping[str, Tensor], token: str) -> dict[str, Tensor]:
    """Trained vectors `[vectors, width]` by text encoder as an embedding file's tensors.

    One text encoder's go under the token, which diffusers' `load_textual_inversion` then takes for
    the word; those of several under the encoders' names ("clip_l", "clip_g"), as both know them.
    """
    names = [token] if len(vectors) == 1 else list(vectors)
    return {name: rows.contiguous() for name, rows in zip(names, vectors.values(), strict=True)}


def check_names(layers: Mapping[str, nn.Module], names: Mapping[str, str]) -> None:
    """Raise `InputError` if a layer to be trained has no name that loaders would find."""
    missing = [path for path in layers if path not in names]
    if missing:
        raise InputError(
            "layers",
            "layers that a LoRA loader can find by name",
            f"{len(missing)} that it cannot, such as {missing[0]}",
            "Choose fewer kinds of layers.",
        )


def check_room(folder: Path, weights: int, copies: int) -> None:
    """Raise `InputError` if the disk of `folder` has no room for so many copies of the weights."""
    needed = 4 * weights * copies + (1 << 20)
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            "output",
            f"{needed / 1e6:.0f} MB free in {folder}",
            f"{free / 1e6:.0f} MB",
            "Free some space; nothing has been written.",
        )


def metadata(config: Mapping[str, object], steps: int, title: str, kind: str) -> dict[str, str]:
    """What the file says of itself: safetensors metadata, strings only.

    Args:
        config: the run's (see `nsync.training.run_config`).
        steps: updates that the weights went through.
        title: the run's name.
        kind: "lora" or "embedding".
    """
    settings = config["settings"]
    network = {"ss_network_module": "networks.lora"}
    if not config["start_from"]:  # else the ranks are those of that file, layer by layer
        network |= {"ss_network_dim": settings["rank"], "ss_network_alpha": settings["alpha"]}
    said = {
        **(network if kind == "lora" else {}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "modelspec.trigger_phrase": config["token"],
        "ss_output_name": title,
        "ss_learning_rate": settings["learning_rate" if kind == "lora" else "embedding_rate"],
        "ss_seed": settings["seed"],
        "ss_steps": steps,
        "nsync.trigger_word": config["token"],
        "nsync.template": config["template"],
        "nsync.base": config["base"],
        "nsync.dataset": config["dataset"],
        "nsync.pictures": config["pictures"],
        "nsync.rule": settings["rule"],
        "nsync.settings": settings,
        "nsync.steps": steps,
        "nsync.versions": config["versions"],
    }
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in said.items()}


def export_file(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> Path:
    """Write the file, whole or not at all, under the first free name; its path.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    path = numbered(path)
    write_atomic(path, save(dict(tensors), metadata=_with_hash(tensors, told)))
    return path


def export_learned(
    learned: Learned,
    places: Mapping[str, Path],
    names: Mapping[str, str],
    config: Mapping[str, object],
    steps: int,
    title: str,
) -> dict[str, Path]:
    """Write what was learned to files; their paths by kind.

    Args:
        places: a path for "lora" and one for "embedding"; the first free name beside it is taken.
        names: the file's name of each layer.
        config, steps, title: see `metadata`.

    Raises:
        InputError: the disk is full or a place cannot be written.
    """
    tensors = {}
    if learned.lora:
        tensors[LORA] = lora_tensors(learned.lora, names, learned.alphas)
    if learned.embedding:
        tensors[EMBEDDING] = embedding_tensors(learned.embedding, config["token"])
    return {
        kind: export_file(places[kind], values, metadata(config, steps, title, kind))
        for kind, values in tensors.items()
    }


def _with_hash(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> dict[str, str]:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].numpy().tobytes())
    return {**told, "nsync.weights_sha256": digest.hexdigest()}
