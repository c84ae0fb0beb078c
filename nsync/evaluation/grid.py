"""Arms side by side: a labelled grid, prompts down, arms across."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .arms import Arm

_GAP, _HEAD, _SIDE, _ROWS = 8, 34, 230, 24
_LEAST, _MOST = 128, 512  # sides of a picture on the grid


def grid(arms: Sequence[Arm]) -> np.ndarray:
    """The first pictures of all arms, uint8 `[height, width, 3]`; rows have the same prompt."""
    rows = min(_ROWS, min(len(arm.pictures) for arm in arms))
    height, width = arms[0].pictures[0].shape[1:]
    scale = max(1, -(-_LEAST // max(width, height))) if max(width, height) < _LEAST else 1
    scale = min(scale, _MOST / max(width, height))
    cell = round(width * scale), round(height * scale)
    size = (
        _SIDE + len(arms) * (cell[0] + _GAP) + _GAP,
        _HEAD + rows * (cell[1] + _GAP) + _GAP,
    )
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for row in range(rows):
        top = _HEAD + row * (cell[1] + _GAP)
        words = (arms[0].captions or arms[0].prompts)[row] if arms[0].prompts else f"#{row}"
        text = "\n".join(textwrap.wrap(words, 30)[: max(1, cell[1] // 18)])
        pen.multiline_text((_GAP, top + 4), text, "#222222", font)
        for column, arm in enumerate(arms):
            left = _SIDE + column * (cell[0] + _GAP)
            picture = Image.fromarray(arm.pictures[row].permute(1, 2, 0).numpy())
            kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
            canvas.paste(picture.resize(cell, kind), (left, top))
    for column, arm in enumerate(arms):
        name = _cut(arm.name, font, cell[0])
        pen.text((_SIDE + column * (cell[0] + _GAP), 8), name, "#222222", font)
    return np.asarray(canvas)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while len(text) > 4 and font.getlength(text) > width:
        text = text[:-4] + "..."
    return text
