"""A text-to-image GAN in one safetensors file, from which alone prompts can be painted.

    generator.<name>    the average of the generator
    encoders.<name>     what the encoders need to read texts
    vision.<name>       the frozen tower that the family's generator thinks with, if any

and in the metadata, as JSON: family and settings, kind and configuration of the encoders (the
vocabulary is there), labels, and what the model was trained with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ...draws import seeded
from ...errors import InputError
from ...files import write_atomic
from ..clip_encoders import ClipEncoders
from ..described_file import DAMAGED, check_tensors, read_described
from ..encoder_file import KINDS
from ..encoders import Encoders
from ..small_encoders import SmallEncoders
from . import FAMILIES
from .contract import Family

VERSION = 1
_MODEL = "nsync.t2i_gan"
_RULE = "a text-to-image GAN saved by the SupCon GAN Trainer (a .safetensors file)"
_NOTHING = (
    "a safetensors file that says nothing of one", "Is it a LoRA, a checkpoint, or encoders?"
)  # fmt: skip
_GENERATOR, _ENCODERS, _VISION = _PARTS = ("generator.", "encoders.", "vision.")
_PICTURES: dict[str, tuple[str, ...]] = {
    SmallEncoders.kind: ("image_encoder.",),
    ClipEncoders.kind: (
        "clip.vision_model.",
        "clip.visual_projection.",
        "clip.logit_scale",
        "project_images.",
    ),
}
"""What encoders have for pictures alone, by their kind; it is not saved."""


@dataclass(frozen=True, eq=False)
class TextToImage:
    """A model that paints; see `sampler.generate`.

    Attributes:
        generator: in eval mode, without gradients.
        encoders: they read texts. What they make of pictures is not in the file: it is noise.
        family: with its settings.
        labels: names of those that it was trained with.
        training: what it was trained with: `settings`, `steps`, digests, versions.
    """

    generator: nn.Module
    encoders: Encoders
    family: Family
    labels: tuple[str, ...]
    training: dict[str, Any]


def save_model(
    path: Path,
    generator: Mapping[str, Tensor],
    family: Family,
    encoders: Encoders,
    *,
    title: str,
    training: Mapping[str, Any],
    vision: nn.Module | None = None,
) -> None:
    """Write a model, whole or not at all.

    Args:
        generator: tensors of the average.
        title: what the file says of itself to a person.
        training: see `training.run_config`; and `steps`, updates made.
        vision: see `Family.needs_vision`.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    told = {
        "version": VERSION,
        "family": describe(family),
        "encoders": {"kind": encoders.kind, "config": encoders.config},
        "vision": _tower(vision).config.to_dict() if family.needs_vision else None,
        "training": dict(training),
    }
    parts = {_GENERATOR: generator, _ENCODERS: _reading(encoders)}
    parts |= {_VISION: _tower(vision).state_dict()} if family.needs_vision else {}
    tensors = {
        prefix + name: value.detach().cpu().contiguous()
        for prefix, part in parts.items()
        for name, value in part.items()
    }
    metadata = {_MODEL: json.dumps(told), "modelspec.title": title}
    write_atomic(path, save(tensors, metadata=metadata))


def load_model(path: Path) -> TextToImage:
    """The model in a file, on the CPU.

    Raises:
        InputError: no such file, none of a text-to-image GAN, of a version that this one cannot
            read, or one whose tensors are not those that it says it has.
    """
    told, tensors = _read(path)
    if told.get("version") != VERSION:
        expected = f"a text-to-image GAN in version {VERSION} of its file format"
        remedy = "Update this pack, or train the model again."
        raise InputError(path.name, expected, f"version {told.get('version')!r}", remedy)
    try:
        family, kind = family_from(told["family"]), KINDS[told["encoders"]["kind"]]
        with seeded(0, "weights that are replaced"):
            encoders = kind.from_config(told["encoders"]["config"])
            vision = CLIPVisionModel(CLIPVisionConfig(**told["vision"])) if told["vision"] else None
            generator = family.build(vision).generator
        training = told["training"]
        labels = tuple(training["labels"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"a description that is none ({type(error).__name__}: {error})"
        raise InputError(path.name, _RULE, got, DAMAGED) from error
    parts = {_GENERATOR: generator.state_dict(), _ENCODERS: _reading(encoders)}
    parts |= {_VISION: _tower(vision).state_dict()} if vision else {}
    _fill(path, parts, tensors)
    generator.eval().requires_grad_(False)
    for each in encoders.parameters():
        each.requires_grad_(False)
    return TextToImage(generator, encoders.eval(), family, labels, training)


def model_metadata(path: Path) -> dict[str, Any]:
    """What a file says of itself: `version`, `family`, `encoders`, `vision`, `training`.

    Raises:
        InputError: no such file, or none of a text-to-image GAN.
    """
    return _read(path, tensors=False)[0]


def describe(family: Family) -> dict[str, Any]:
    """A family's name and settings, as JSON values."""
    [name] = [name for name, kind in FAMILIES.items() if kind is type(family)]
    return json.loads(json.dumps({"name": name, **asdict(family)}))


def family_from(told: Mapping[str, Any]) -> Family:
    """The family that `describe` has told of.

    Raises:
        KeyError, TypeError: no such family or settings.
    """
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
    return FAMILIES[values.pop("name")](**values)


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return read_described(path, _MODEL, _RULE, _NOTHING, tensors)


def _tower(vision: nn.Module) -> nn.Module:
    """Inside: its names do not depend on the version of transformers."""
    return getattr(vision, "vision_model", vision)


def _reading(encoders: Encoders) -> dict[str, Tensor]:
    """What the encoders need to read texts."""
    left = _PICTURES[encoders.kind]
    return {n: value for n, value in encoders.state_dict().items() if not n.startswith(left)}


@torch.no_grad()
def _fill(
    path: Path, parts: Mapping[str, Mapping[str, Tensor]], found: Mapping[str, Tensor]
) -> None:
    wanted = {
        prefix + name: value for prefix, part in parts.items() for name, value in part.items()
    }
    check_tensors(path, "the tensors of its model", wanted, found)
    for name, value in wanted.items():
        value.copy_(found[name])
