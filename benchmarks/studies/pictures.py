"""Pictures of a study that are kept to be shown."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nsync.pictures.images import png

STRIP = 8
"""Pictures that are kept of a cell."""
_NAME, _GAP = 190, 4


def strip(pictures: Tensor) -> bytes:
    """A PNG of the first pictures of uint8 `[n, 3, h, w]` side by side."""
    return png(Image.fromarray(torch.cat(list(pictures[:STRIP]), dim=2).movedim(0, 2).numpy()))


def sheet(rows: Sequence[tuple[str, Image.Image]], scale: int = 1) -> Image.Image:
    """Strips below each other, each with its name on the left.

    Args:
        rows: at least one; strips of one size.
        scale: every pixel is shown as so many, each way.
    """
    width, height = (scale * side for side in rows[0][1].size)
    shown = Image.new("RGB", (_NAME + width, len(rows) * (height + _GAP)), "white")
    pen, font = ImageDraw.Draw(shown), ImageFont.load_default(14)
    for row, (name, strip) in enumerate(rows):
        top = row * (height + _GAP)
        pen.text((4, top + height // 2 - 8), name, "#222222", font)
        shown.paste(strip.resize((width, height), Image.Resampling.NEAREST), (_NAME, top))
    return shown
