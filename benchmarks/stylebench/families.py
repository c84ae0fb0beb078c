"""Families of styles: what a study may teach, and the ruler that reads it.

A ruler tells apart the styles that it was trained on, and no others. The later styles have their
own, so that records by the first stay what they are.
"""

from dataclasses import dataclass
from pathlib import Path

from nsync.tiny import RULER_FILE
from nsync.tiny.world import HELD_OUT_STYLES

from .later_styles import LATER, LATER_RULER_FILE


@dataclass(frozen=True)
class Family:
    """Styles that the base has never seen, and the file of the ruler that reads them."""

    styles: tuple[str, ...]
    ruler: Path


FIRST_FAMILY = Family(HELD_OUT_STYLES, RULER_FILE)
LATER_FAMILY = Family(tuple(LATER), LATER_RULER_FILE)
FAMILIES = (FIRST_FAMILY, LATER_FAMILY)


def family_of(style: str) -> Family:
    """The family that this style is of."""
    return next(family for family in FAMILIES if style in family.styles)
