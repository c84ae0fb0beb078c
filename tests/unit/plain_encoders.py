"""Encoders of a few numbers each, whose vectors a test can work out by hand."""

import torch
from torch import Tensor


class PlainEncoder:
    """The mean colour of a picture through a random matrix, at length 1."""

    preprocessing, precision, notes = "mean-colour", "fp32", ()

    def __init__(self, name: str, seed: int = 0, *, texts: bool = False, width: int = 5) -> None:
        self.name, self.identity, self.width, self.reads_texts = name, f"{seed:064x}", width, texts
        source = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(3, width, generator=source)
        self.seen = 0

    def encode(self, pictures: list[Tensor], on_item: object = None) -> Tensor:
        self.seen += len(pictures)
        colours = torch.stack([one.float().mean((1, 2)) / 255 - 0.5 for one in pictures])
        return torch.nn.functional.normalize(colours @ self.weights, dim=1)

    def encode_texts(self, texts: list[str]) -> Tensor:
        lengths = torch.tensor([[len(text), text.count("a"), 1.0] for text in texts])
        return torch.nn.functional.normalize(lengths @ self.weights, dim=1)

    def probabilities(self, features: Tensor) -> Tensor:
        return (4 * features).double().softmax(1)


def pictures(count: int, colour: tuple[float, float, float], seed: int, spread: float = 0.1):
    """Pictures 8 x 8 of about one colour."""
    source = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        tone = torch.tensor(colour) + spread * torch.randn(3, generator=source)
        noise = 0.05 * torch.randn(3, 8, 8, generator=source)
        made.append(((tone[:, None, None] + noise).clamp(0, 1) * 255).byte())
    return tuple(made)
