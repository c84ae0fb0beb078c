"""Small networks, encoders and batches for the steps of GANs, in float64."""

from dataclasses import replace

import torch
from gan_files import normal
from torch import Tensor, nn

from nsync.supcon.encoders import Pictures, fitted
from nsync.supcon.gan.contract import Judged, Painted
from nsync.supcon.gan.settings import GanSettings
from nsync.supcon.gan.sides import Side

WIDTH, NOISE = 4, 3
SETTINGS = replace(GanSettings(), augmentation="none", batch=5, class_mask=True)


class Painter(nn.Module):
    """Two stages, of 4 and of 8 px; looks at noise, text and the mean word."""

    noise = NOISE

    def __init__(self) -> None:
        super().__init__()
        told = NOISE + 2 * WIDTH
        self.small, self.large = nn.Linear(told, 3 * 4 * 4), nn.Linear(told, 3 * 8 * 8)

    def forward(self, noise: Tensor, text: Tensor, words: Tensor, mask: Tensor) -> Painted:
        heard = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        told = torch.cat([noise, text, heard], 1)
        stages = ((self.small, 4), (self.large, 8))
        images = tuple(part(told).tanh().view(-1, 3, size, size) for part, size in stages)
        return Painted(images, heard.square().mean(1) * noise.square().mean(1))


class Judge(nn.Module):
    """Not linear in pictures or texts; observes twice the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.read = nn.Conv2d(3, 5, 3), nn.Linear(WIDTH, 5)

    def observe(self, images: Tensor) -> Tensor:
        return 2 * images

    def features(self, observed: Tensor) -> Tensor:
        return self.see(observed).tanh()

    def judge(self, features: Tensor, text: Tensor) -> Judged:
        pooled = features.mean((2, 3))
        return Judged((3 * pooled * self.read(text)).sum(1), pooled)


class Eyes:
    """An image encoder: the mean colour of the quarters, through a matrix."""

    width, image_size = WIDTH, 4

    def images(self, pixels: Tensor) -> Pictures:
        regions = nn.functional.avg_pool2d(fitted(self, pixels), 2).flatten(1).unflatten(1, (3, 4))
        whole = regions.flatten(1) @ normal("eyes", 12, WIDTH)
        return Pictures(whole, regions.transpose(1, 2))


def networks() -> tuple[nn.Module, nn.ModuleList]:
    """The same ones always."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Painter().double(), nn.ModuleList([Judge(), Judge()]).double()


def side(branch: int, labels: list[int], texts: list[int]) -> Side:
    """Pairs of 8 px; equal texts have equal features."""
    count = len(labels)
    images = normal(f"images {branch}", count, 3, 8, 8).tanh()
    sentences = torch.stack([normal(f"text {k}", WIDTH) for k in texts])
    words = torch.stack([normal(f"words {k}", 2, WIDTH) for k in texts])
    return Side(
        images=images,
        seen=normal(f"seen {branch}", count, WIDTH),
        text=sentences,
        words=words,
        mask=torch.ones(count, 2, dtype=torch.bool),
        texts=torch.tensor(texts),
        labels=torch.tensor(labels),
        noise=normal(f"noise {branch}", count, NOISE),
    )


def sides() -> list[Side]:
    """Five pairs of three labels in two branches; two items of branch 0 share a text."""
    labels = [0, 0, 1, 2, 1]
    return [side(0, labels, [0, 1, 2, 3, 2]), side(1, labels, [4, 0, 5, 6, 2])]
