"""Tells when contrast has taken what is inside a label: pictures of one label become one point.

Supervised contrast pulls features of a label together. Where matching leaves pairs of a label out
of its wrong answers, nothing pushes them apart again, and with few labels a feature soon says its
label and nothing else: texts then find a picture of their label, but not their own. Two numbers of
a step tell of it, over the items of both branches:

    inside_spread     1 - cosine of pictures of one label, the mean, over the same of pictures that
                      share none; 1 where labels play no part, 0 where a label is a point
    inside_matching   cross-entropy of a text's own picture among those of its label, over that of
                      guessing; 1 is chance

At the start both are about 1. In a collapse the first falls while the second stays.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import label_overlap
from .pairs import numbered

SPREAD, MATCHING = "inside_spread", "inside_matching"

TOGETHER, CHANCE = 0.25, 0.8
"""Below the first, pictures of a label lie together; above the second, texts guess among them."""
PATIENCE = 50
_NOTHING = 1e-6

WARNING = (
    f"What is inside a label has come together for {PATIENCE} steps: texts find a picture of their "
    "label, but hardly their own among those. A GAN will learn little that labels do not say. "
    "Switch `class_mask` off, take finer labels, or lower the weights of the contrast."
)


@torch.no_grad()
def inside(
    images: Tensor, texts: Tensor, labels: Tensor, captions: Sequence[str], temperature: float
) -> dict[str, Tensor]:
    """Both numbers of a step, each a scalar on the device; 1 where no two items share a label, or
    all do.

    Args:
        images: float `[n, d]`.
        texts: float `[n, d]`, row by row the images'.
        labels: see `losses.supervised_contrastive`.
        captions: `n` of them. Items with the same one are no wrong answers for each other.
    """
    named = numbered(captions).to(images.device)
    other = named[:, None] != named[None]
    shared = label_overlap(labels, labels) > 0
    images, texts = (F.normalize(part.float(), dim=1) for part in (images, texts))
    apart = 1 - images @ images.T
    spread = apart[shared & other].mean() / apart[~shared].mean().clamp(min=_NOTHING)
    own = torch.eye(len(images), dtype=torch.bool, device=images.device)
    candidates = (shared & other) | own
    scores = (texts @ images.T / temperature).masked_fill(~candidates, float("-inf"))
    asked = candidates.sum(1) > 1
    losses = scores.logsumexp(1) - scores.diagonal()
    guessed = candidates.sum(1).float().log()
    told = {SPREAD: spread, MATCHING: losses[asked].mean() / guessed[asked].mean()}
    return {name: value.nan_to_num(nan=1.0) for name, value in told.items()}


class CollapseWatch:
    """Looks at the numbers of steps, and has one sentence for a run.

    Args:
        labelled: whether labels have a part in the run. Where they have none it says nothing: a
            young encoder may tell labels before all else by itself.
    """

    def __init__(self, *, labelled: bool) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=PATIENCE)
        self._told = not labelled

    def see(self, values: Mapping[str, float]) -> str:
        """The warning when the mean of the last `PATIENCE` steps says so for the first time."""
        seen = values.get(SPREAD), values.get(MATCHING)
        if self._told or None in seen:
            return ""
        self._recent.append(seen)
        if len(self._recent) < PATIENCE:
            return ""
        spread, matching = map(fmean, zip(*self._recent, strict=True))
        self._told = spread < TOGETHER and matching > CHANCE
        return WARNING if self._told else ""
