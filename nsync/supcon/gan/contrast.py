"""The arms that are compared: how labels, or branches, tell a generator what belongs together.

All of them look at what the frozen image encoder sees in the finished pictures of both branches:

    none        nothing; the GAN as it was published
    classifier  inner_weight * cross-entropy of a linear classifier, which is trained on the real
                pictures beside the discriminators
    unicl       inter_weight * image-text and text-image within each branch, the mean of branches:
                UniCL (arXiv 2204.03610) has no second branch
    nt-xent     inner_weight * NT-Xent of the branches, without labels: T2I_CL (arXiv 2107.02423)
    supcon      inter_weight * image-text and text-image over both branches
                + inner_weight * image-image over both branches: arXiv 2412.03957

Text-text, the fourth term of pretraining, has nothing to say to a generator: its texts are given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import (
    classification,
    cross_contrastive,
    nt_xent,
    supervised_contrastive,
    unicl,
)
from .settings import CLASSIFIER, NT_XENT, SUPCON, UNICL, GanSettings


def contrast(
    settings: GanSettings,
    painted: Sequence[Tensor],
    texts: Sequence[Tensor],
    labels: Sequence[Tensor],
    real: Sequence[Tensor],
    classifier: nn.Linear | None = None,
) -> Tensor:
    """The arm that `settings.contrast` names, with its weights; see the top.

    Args:
        painted: per branch float `[n, d]`, what the encoder sees in painted pictures.
        texts: per branch float `[n, d]`, what they were painted for.
        labels: per branch; see `nsync.supcon.losses`.
        real: per branch float `[n, d]`, seen in the real pictures of these texts. With
            `settings.contrast_real` they stand beside the painted ones in `supcon`.
        classifier: for its arm; see `classifier_loss`.

    Returns:
        A scalar.
    """
    heat = settings.temperature
    inter, inner = settings.inter_weight, settings.inner_weight
    if settings.contrast == CLASSIFIER:
        logits = _logits(settings, classifier, torch.cat(list(painted)))
        return inner * classification(logits, torch.cat(list(labels)))
    if settings.contrast == UNICL:
        rows = zip(painted, texts, labels, strict=True)
        return inter * torch.stack([unicl(*row, temperature=heat) for row in rows]).mean()
    if settings.contrast == NT_XENT:
        return inner * nt_xent(*painted, temperature=heat)
    if settings.contrast == SUPCON:
        branches = len(labels)
        several = [*painted, *real] if settings.contrast_real else painted
        images, words = torch.cat(list(several)), torch.cat(list(texts))
        theirs = torch.cat(list(labels) * (len(several) // branches))
        return inter * _inter(images, words, theirs, torch.cat(list(labels)), heat) + (
            inner * supervised_contrastive(images, theirs, temperature=heat)
        )
    return painted[0].new_zeros(())


def classifier_loss(
    settings: GanSettings, classifier: nn.Linear, seen: Sequence[Tensor], labels: Sequence[Tensor]
) -> Tensor:
    """Cross-entropy of the classifier on real pictures, over all branches.

    It reads unit vectors over the temperature, which is what the other arms compare.

    Args:
        seen: per branch float `[n, d]`.
        labels: per branch; see `nsync.supcon.losses`.
    """
    logits = _logits(settings, classifier, torch.cat(list(seen)))
    return classification(logits, torch.cat(list(labels)))


def _logits(settings: GanSettings, classifier: nn.Linear, seen: Tensor) -> Tensor:
    return classifier(F.normalize(seen, dim=1) / settings.temperature)


def _inter(
    images: Tensor, texts: Tensor, labels: Tensor, of_texts: Tensor, temperature: float
) -> Tensor:
    """Both directions, their mean, as `unicl`; but images may be more than texts."""
    told = cross_contrastive(images, texts, labels, of_texts, temperature=temperature)
    shown = cross_contrastive(texts, images, of_texts, labels, temperature=temperature)
    return (told + shown) / 2
