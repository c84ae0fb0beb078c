"""How labels are used beside matching: the method's four contrastive terms, and the arms that it is
compared with.

All of them take the features of both branches, those of branch 1 first, and the same total weight.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from .losses import classification, cross_contrastive, nt_xent, supervised_contrastive, unicl

SUPCON, NONE, CLASSIFIER, UNICL, NT_XENT = "supcon", "none", "classifier", "unicl", "nt-xent"
CONTRASTS = (SUPCON, NONE, CLASSIFIER, UNICL, NT_XENT)
"""The method, nothing, and what the paper and its predecessor compare with."""


class Weights(NamedTuple):
    """Of the method's four terms; the other arms have their sum for a weight.

    Attributes:
        image_image: among pictures (inner-modal).
        text_text: among texts (inner-modal).
        image_text: of pictures among texts (inter-modal).
        text_image: of texts among pictures (inter-modal).
    """

    image_image: float
    text_text: float
    image_text: float
    text_image: float


def contrast(
    kind: str,
    images: Tensor,
    texts: Tensor,
    labels: Tensor,
    *,
    weights: Weights,
    temperature: float,
    classifier: nn.Module | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of an arm's terms, and each term by itself.

    - "supcon": `losses.supervised_contrastive` within each modality and `losses.cross_contrastive`
      between them, both ways; a term without a weight is left out.
    - "unicl": `losses.unicl`, inter-modal only.
    - "nt-xent": `losses.nt_xent` between the branches, the mean over pictures and texts: the
      partner in the other branch is the only positive, whatever else has the label.
    - "classifier": `losses.classification` by one classifier, the mean over pictures and texts.
    - "none": no term.

    Args:
        kind: one of `CONTRASTS`.
        images: float `[2 n, d]`.
        texts: float `[2 n, d]`, row by row the images'.
        labels: of the `2 n` items; see `losses.supervised_contrastive`.
        classifier: from `d` to the number of labels, for "classifier".

    Raises:
        InputError: no such kind, no classifier where one is needed; as the losses.
    """
    total = sum(weights)
    if kind == SUPCON:
        parts = _terms(images, texts, labels, weights, temperature)
        each = weights._asdict()
    elif kind == UNICL:
        parts, each = {UNICL: unicl(images, texts, labels, temperature=temperature)}, {UNICL: total}
    elif kind == NT_XENT:
        means = [nt_xent(*one.chunk(2), temperature=temperature) for one in (images, texts)]
        parts, each = {"nt_xent": sum(means) / 2}, {"nt_xent": total}
    elif kind == CLASSIFIER and classifier is not None:
        means = [classification(classifier(one), labels) for one in (images, texts)]
        parts, each = {CLASSIFIER: sum(means) / 2}, {CLASSIFIER: total}
    elif kind == NONE:
        parts, each = {}, {}
    else:
        expected = f"one of {', '.join(CONTRASTS)}, with a classifier for {CLASSIFIER!r}"
        raise InputError("contrast", expected, repr(kind))
    return sum((parts[name] * each[name] for name in parts), torch.zeros_like(images[0, 0])), parts


def _terms(
    images: Tensor, texts: Tensor, labels: Tensor, weights: Weights, temperature: float
) -> dict[str, Tensor]:
    parts, given = {}, {"temperature": temperature}
    if weights.image_image:
        parts["image_image"] = supervised_contrastive(images, labels, **given)
    if weights.text_text:
        parts["text_text"] = supervised_contrastive(texts, labels, **given)
    if weights.image_text:
        parts["image_text"] = cross_contrastive(images, texts, labels, **given)
    if weights.text_image:
        parts["text_image"] = cross_contrastive(texts, images, labels, **given)
    return parts
