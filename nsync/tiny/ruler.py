"""The ruler: a small classifier that reads style and content off pictures of the tiny world.

Trained by `scripts/tiny/train_ruler.py` on renders of all styles, held-out ones too. It measures
the base and every method here against ground truth; it never takes part in training a style.
Another ruler, of more styles, names them in its file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import InputError
from . import RULER_FILE
from .scenes import BACKGROUNDS, COLOURS, COUNTS, PLACES, SHAPES, Scene
from .world import STYLES

TABLES: dict[str, tuple[str, ...]] = {
    "style": tuple(STYLES),
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "place": tuple(PLACES),
    "count": COUNTS,
    "background": BACKGROUNDS,
}
"""What the shipped ruler reads."""
FEATURES = 128


@dataclass(frozen=True)
class Reading:
    """What the ruler sees in `n` pictures.

    Attributes:
        probabilities: per table (`style`, `shape`, ...) float32 `[n, classes]`.
        features: the layer before the heads, float32 `[n, 128]`.
        styles: the classes of the table `style`.
    """

    probabilities: dict[str, Tensor]
    features: Tensor
    styles: tuple[str, ...]

    @classmethod
    def joined(cls, parts: Sequence["Reading"]) -> "Reading":
        """What one ruler saw in several parts, at least one, as if in one."""
        tables = {
            name: torch.cat([part.probabilities[name] for part in parts])
            for name in parts[0].probabilities
        }
        return cls(tables, torch.cat([part.features for part in parts]), parts[0].styles)

    def indices(self, table: str) -> Tensor:
        """The likeliest class `[n]` of a table."""
        return self.probabilities[table].argmax(1)

    def style_hits(self, style: str) -> Tensor:
        """True where a picture is read as this style, bool `[n]`."""
        return self.indices("style") == self.styles.index(style)

    def content_hits(self, scenes: list[Scene], fields: tuple[str, ...]) -> Tensor:
        """True where all of these fields are read as the scenes have them, bool `[n]`."""
        truth = torch.tensor([[getattr(s, f) for f in fields] for s in scenes])
        return (torch.stack([self.indices(f) for f in fields], 1) == truth).all(1)


class Ruler(nn.Module):
    """Four convolutions with pooling, one linear layer, a head per table.

    Args:
        styles: that it tells apart, in the order of its head.
    """

    def __init__(self, styles: tuple[str, ...] = TABLES["style"]) -> None:
        super().__init__()
        self.tables = {**TABLES, "style": styles}
        widths = (3, 32, 64, 96, 128)
        blocks = [
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for a, b in pairwise(widths)
        ]  # fmt: skip
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * 16, FEATURES), nn.ReLU())
        self.heads = nn.ModuleDict({k: nn.Linear(FEATURES, len(v)) for k, v in self.tables.items()})

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits per table and features of pixels `[n, 3, 64, 64]` in 0..1."""
        features = self.body(pixels * 2 - 1)
        return {name: head(features) for name, head in self.heads.items()}, features

    @classmethod
    def load(cls, file: Path = RULER_FILE) -> "Ruler":
        """A trained ruler, in evaluation mode; the shipped one, if no file is given.

        A JSON list `styles` in the file's metadata names its styles; one without it has the
        world's.
        """
        with safe_open(file, "pt") as opened:
            told = (opened.metadata() or {}).get("styles")
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
        ruler = cls(tuple(json.loads(told))) if told else cls()
        ruler.load_state_dict(weights)
        return ruler.eval()

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Reading:
        """Read pictures `[n, 3, 64, 64]`, float in 0..1.

        Raises:
            InputError: if the pictures have another size.
        """
        if pixels.shape[1:] != (3, 64, 64):
            raise InputError("pixels", "pictures [n, 3, 64, 64]", str(tuple(pixels.shape)))
        logits, features = self(pixels.float())
        return Reading({k: v.softmax(1) for k, v in logits.items()}, features, self.tables["style"])
