"""What a training of a GAN is put together from: a family at a size, its published settings, the
tower that it looks with."""

from dataclasses import fields, replace

from torch import nn

from ...errors import InputError
from ..clip_encoders import ClipEncoders
from ..encoders import Encoders
from . import FAMILIES
from .contract import Family
from .settings import GanSettings, defaults

AS_SET, PUBLISHED = "as set", "published"
_PUBLISHED = (
    "batch",
    "generator_rate",
    "discriminator_rate",
    "beta1",
    "beta2",
    "warmup",
    "ema",
    "augmentation",
    "adversarial",
    "divergence_weight",
    "penalty_weight",
    "r1_gamma",
    "penalty_every",
    "match_weight",
    "word_match_weight",
)
"""Settings that a family's paper or code has a value for."""

_INNER = (
    "mask_width",
    "code_width",
    "bridge_width",
    "seen_width",
    "joint_width",
    "discriminator_width",
)
"""Widths of a family that go with its `width`."""


def family_of(name: str, image_size: int, width: int, encoders: Encoders) -> Family:
    """A family at a size, for texts of these encoders.

    What else the published networks have widths for keeps its ratio to theirs.
    """
    kind, published = FAMILIES[name], FAMILIES[name]()
    share = width / published.width
    inner = {
        field.name: max(1, round(getattr(published, field.name) * share))
        for field in fields(kind)
        if field.name in _INNER
    }
    return kind(image_size=image_size, width=width, text_width=encoders.width, **inner)


def with_preset(settings: GanSettings, family: Family, preset: str) -> GanSettings:
    """The settings; of the family's own values, those that are published."""
    if preset == AS_SET:
        return settings
    own = defaults(family)
    return replace(settings, **{name: getattr(own, name) for name in _PUBLISHED})


def vision_of(family: Family, encoders: Encoders) -> nn.Module | None:
    """The frozen tower that the family needs: that of CLIP encoders, which they share."""
    if not family.needs_vision:
        return None
    if not isinstance(encoders, ClipEncoders):
        raise InputError(
            "encoders",
            "CLIP encoders, for a family that looks and thinks with CLIP's vision tower",
            f"{encoders.kind} ones",
            "Choose a CLIP in SupCon Pretrainer, or another family.",
        )
    return encoders.clip.vision_model
