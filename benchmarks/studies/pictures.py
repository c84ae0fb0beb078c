"""Pictures of a study that are kept to be shown."""

import torch
from PIL import Image
from torch import Tensor

from nsync.pictures.images import png

STRIP = 8
"""Pictures that are kept of a cell."""


def strip(pictures: Tensor) -> bytes:
    """A PNG of the first pictures of uint8 `[n, 3, h, w]` side by side."""
    return png(Image.fromarray(torch.cat(list(pictures[:STRIP]), dim=2).movedim(0, 2).numpy()))
