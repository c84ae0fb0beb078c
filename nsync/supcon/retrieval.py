"""How well texts find their pictures, and pictures their texts, among others."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..draws import generator
from ..errors import InputError

OTHERS = 99
"""Candidates beside the right one, as the field has it (AttnGAN, arXiv 1711.10485, section 4)."""


class Retrieval(NamedTuple):
    """R-precision with one right candidate each (R = 1), as shares in 0..1.

    Attributes:
        text_to_image: texts whose own picture is the nearest.
        image_to_text: pictures whose own text is the nearest.
        pictures: wrong candidates of a text; chance is 1 / (pictures + 1).
        texts: wrong candidates of a picture, all of them different.
    """

    text_to_image: float
    image_to_text: float
    pictures: int
    texts: int


@torch.no_grad()
def retrieval(
    images: Tensor, texts: Tensor, captions: Sequence[str], *, seed: int = 0
) -> Retrieval:
    """How often the pair that belongs together is the nearest by cosine.

    Each item is compared with `OTHERS` more, drawn by the seed, or with as many as there are.
    Others with the very same caption are left out, for they are no wrong answer, and a picture's
    candidates have each text once: the second time it would be no other answer. Where the right
    one shares the first place with k wrong ones it counts 1 / (k + 1), so that features that are
    all alike do no better than chance.

    Args:
        images: float `[n, d]`.
        texts: float `[n, d]`, row by row the images'.
        captions: `n` of them.

    Raises:
        InputError: unequal numbers; no two different captions.
    """
    if images.shape != texts.shape or len(captions) != len(images):
        got = f"{tuple(images.shape)}, {tuple(texts.shape)} and {len(captions)} captions"
        raise InputError("features", "pictures, texts and captions row by row", got)
    if len(set(captions)) < 2:
        raise InputError("captions", "at least two different ones", "one")
    orders = [_others(row, captions, seed) for row in range(len(captions))]
    pictures = _columns(orders)
    unlike = _columns([list({captions[row]: row for row in order}.values()) for order in orders])
    scores = (F.normalize(texts.double(), dim=1) @ F.normalize(images.double(), dim=1).T).cpu()
    shares = _share(scores, pictures), _share(scores.T, unlike)
    return Retrieval(*shares, pictures.shape[1], unlike.shape[1])


def _others(row: int, captions: Sequence[str], seed: int) -> list[int]:
    """All with other captions, in a random order."""
    order = torch.randperm(len(captions), generator=generator(seed, "candidates", row)).tolist()
    return [other for other in order if captions[other] != captions[row]]


def _columns(orders: Sequence[Sequence[int]]) -> Tensor:
    """Of each as many as all have, `OTHERS` at most."""
    count = min(OTHERS, *map(len, orders))
    return torch.tensor([list(order[:count]) for order in orders])


def _share(scores: Tensor, others: Tensor) -> float:
    own, wrong = scores.diagonal()[:, None], scores.gather(1, others)
    hits = (wrong <= own).all(1).double() / ((wrong == own).sum(1) + 1)
    return float(hits.mean())
