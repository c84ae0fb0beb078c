"""The tiny world: scenes times styles, drawn from a seed.

>>> pictures = render(draw_scenes(2, seed=0), "hatching", seed=0)
>>> tuple(pictures.shape)
(2, 3, 64, 64)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..draws import derive_seed
from ..errors import InputError
from .held_out import HELD_OUT
from .scenes import SIZE, Scene, draw_scenes, lay_out
from .styles import PRETRAIN, Style

STYLES: dict[str, Style] = PRETRAIN | HELD_OUT
PRETRAIN_STYLES = tuple(PRETRAIN)
HELD_OUT_STYLES = tuple(HELD_OUT)

__all__ = [
    "HELD_OUT_STYLES", "PRETRAIN_STYLES", "STYLES", "Scene", "Styled", "draw_scenes", "in_words",
    "render", "render_each",
]  # fmt: skip


@dataclass(frozen=True)
class Styled:
    """What a picture shows, and in which of `STYLES`."""

    scene: Scene
    style: str

    @property
    def caption(self) -> str:
        """All of it in words."""
        return f"{self.scene.caption()} in the style of {in_words(self.style)}"


def in_words(style: str) -> str:
    """What captions call a style."""
    return style.replace("_", " ")


def render(scenes: Sequence[Scene], style: str, seed: int) -> Tensor:
    """Draw the scenes in one style: float32 `[n, 3, 64, 64]` in 0..1, the same for one seed.

    Raises:
        InputError: if the style is unknown.
    """
    if style not in STYLES:
        raise InputError("style", f"one of {', '.join(STYLES)}", repr(style))
    return STYLES[style](lay_out(scenes, derive_seed(seed, style))).clamp(0, 1)


def render_each(shown: Sequence[Styled], seed: int) -> Tensor:
    """Draw each in its own style: float32 `[n, 3, 64, 64]` in 0..1, the same for one seed.

    Raises:
        InputError: if a style is unknown.
    """
    pictures = torch.empty(len(shown), 3, SIZE, SIZE)
    for style in dict.fromkeys(one.style for one in shown):
        places = [place for place, one in enumerate(shown) if one.style == style]
        pictures[places] = render([shown[place].scene for place in places], style, seed)
    return pictures
