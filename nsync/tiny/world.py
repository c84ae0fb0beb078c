"""The tiny world: scenes times styles, drawn from a seed.

>>> pictures = render(draw_scenes(2, seed=0), "hatching", seed=0)
>>> tuple(pictures.shape)
(2, 3, 64, 64)
"""

from collections.abc import Sequence

from torch import Tensor

from ..draws import derive_seed
from ..errors import InputError
from .held_out import HELD_OUT
from .scenes import Scene, draw_scenes, lay_out
from .styles import PRETRAIN, Style

STYLES: dict[str, Style] = PRETRAIN | HELD_OUT
PRETRAIN_STYLES = tuple(PRETRAIN)
HELD_OUT_STYLES = tuple(HELD_OUT)

__all__ = ["HELD_OUT_STYLES", "PRETRAIN_STYLES", "STYLES", "Scene", "draw_scenes", "render"]


def render(scenes: Sequence[Scene], style: str, seed: int) -> Tensor:
    """Draw the scenes in one style: float32 `[n, 3, 64, 64]` in 0..1, the same for one seed.

    Raises:
        InputError: if the style is unknown.
    """
    if style not in STYLES:
        raise InputError("style", f"one of {', '.join(STYLES)}", repr(style))
    return STYLES[style](lay_out(scenes, derive_seed(seed, style))).clamp(0, 1)
