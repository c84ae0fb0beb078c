"""What one step of training a text-to-image GAN asks of its two sides, as plain functions.

A step is fed by two branches: each has pairs of its own of a picture and a text, row by row with
the other's of the same label, and both go through the same networks. Everything is added up over
branches, as T2I_CL (arXiv 2107.02423) does, and over the stages of a family:

    discriminator: adversarial, of matching, painted and mismatched pairs, + gradient penalties
    generator:     adversarial + match_weight * match + divergence_weight * divergence + contrast

where

    adversarial  is a hinge or a cross-entropy, of all that a discriminator is asked (the module
                 `adversarial`);
    match        is the matching loss of what the frozen image encoder sees in the finished
                 pictures with the texts that they were painted for, as wholes and, with a weight
                 of its own, by regions and words: DAMSM's place in AttnGAN (1711.10485);
    divergence   is what it costs a generator to draw from its texts (`contract.Painted`);
    contrast     compares pictures and texts of both branches by their labels, the idea of arXiv
                 2412.03957, or is another arm of `nsync.supcon.contrast`, in T2I_CL's place.

As in the published loops a step paints once: the discriminator is trained on these pictures, and
the generator is then judged, on the same pictures, by what came of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...draws import generator
from ..contrast import CLASSIFIER, NT_XENT, contrast
from ..encoders import Encoders, Pictures
from ..losses import classification, label_overlap, matching
from ..words import word_matching
from . import adversarial
from .augment import augment, draw_change
from .contract import Discriminator, Judged, Painted
from .penalties import matching_aware_penalty, mismatched, r1_penalty
from .settings import GanSettings

Terms = dict[str, Tensor]
"""Numbers of a step by the names that the log has for them, each a scalar."""


class Side(NamedTuple):
    """What one branch of a step is fed: n pairs, row by row.

    Attributes:
        images: float `[n, 3, s, s]` in -1..1, real pictures of the family's `image_size`.
        seen: float `[n, d]`, what the frozen image encoder sees in them.
        text: float `[n, d]`, a feature per sentence, of the frozen text encoder.
        words: float `[n, l, d]`, a feature per word.
        mask: bool `[n, l]`, True where there is a word.
        texts: int `[n]`, equal numbers for equal texts.
        labels: int `[n]`, or 0 and 1 `[n, classes]`; see `nsync.supcon.losses`.
        noise: float `[n, z]`.
    """

    images: Tensor
    seen: Tensor
    text: Tensor
    words: Tensor
    mask: Tensor
    texts: Tensor
    labels: Tensor
    noise: Tensor


def paint(painter: nn.Module, sides: Sequence[Side]) -> list[Painted]:
    """What the generator paints for each branch, one branch after the other."""
    return [painter(side.noise, side.text, side.words, side.mask) for side in sides]


def discriminator_loss(
    settings: GanSettings,
    discriminators: Sequence[Discriminator],
    sides: Sequence[Side],
    painted: Sequence[Painted],
    step: int,
) -> Terms:
    """What the discriminators of all stages are asked for; see the top.

    Args:
        painted: no gradients flow back to it.
        step: 0-based; it decides how pictures are changed, and whether the penalties are due. Due
            every k steps they have k times their weight (StyleGAN2, arXiv 1912.04958, section 3.1).

    Returns:
        `loss_d`, to go backward from; the `penalty` in it, when one is due; mean scores of real
        pictures with their texts, of painted ones, and of real ones with other texts, where the
        batch has any: `score_real`, `score_fake`, `score_mismatched`.
    """
    judgements = [
        _judged(settings, judge, side, images, strangers(settings, side), (step, branch, stage))
        for branch, (side, made) in enumerate(zip(sides, painted, strict=True))
        for stage, (images, judge) in enumerate(zip(made.images, discriminators, strict=True))
    ]
    losses, penalties, *scores = zip(*judgements, strict=True)
    told = {}
    total = torch.stack(losses).sum()
    if step % settings.penalty_every == 0:
        told["penalty"] = settings.penalty_every * torch.stack(penalties).sum()
        total = total + told["penalty"]
    for name, each in zip(("real", "fake", "mismatched"), map(torch.cat, scores), strict=True):
        if len(each):
            told[f"score_{name}"] = each.float().mean()
    return {"loss_d": total, **{name: value.detach() for name, value in told.items()}}


def generator_loss(
    settings: GanSettings,
    discriminators: Sequence[Discriminator],
    encoders: Encoders,
    sides: Sequence[Side],
    painted: Sequence[Painted],
    step: int,
    classifier: nn.Linear | None = None,
) -> Terms:
    """What the generator is asked for; see the top.

    Returns:
        `loss_g`, to go backward from; its parts, without their weights but for the last:
        `adversarial`, `match`, `word_match` where it has a weight, `divergence`, `contrast`; and
        `spread`, see there.
    """
    fooled = [
        adversarial.generator_loss(
            settings.adversarial,
            _judge(judge, shown(settings, images, *place, "painted"), side.text),
        )
        for branch, (side, made) in enumerate(zip(sides, painted, strict=True))
        for stage, (images, judge) in enumerate(zip(made.images, discriminators, strict=True))
        for place in [(step, branch, stage)]
    ]
    pictures = [encoders.images(made.images[-1]) for made in painted]
    seen = [one.whole for one in pictures]
    match = [
        matching(one, side.text, _spared(settings, side))
        for one, side in zip(seen, sides, strict=True)
    ]
    parts = {
        "adversarial": torch.stack(fooled).sum(),
        "match": torch.stack(match).sum(),
        "divergence": torch.stack([made.divergence.mean() for made in painted]).sum(),
        "contrast": contrasted(settings, seen, sides, classifier),
    }
    loss = parts["adversarial"] + settings.match_weight * parts["match"] + parts["contrast"]
    loss = loss + settings.divergence_weight * parts["divergence"]
    if settings.word_match_weight:
        parts["word_match"] = word_match(settings, pictures, sides)
        loss = loss + settings.word_match_weight * parts["word_match"]
    parts["spread"] = spread([one.detach() for one in seen], [side.seen for side in sides])
    return {"loss_g": loss, **{name: part.detach() for name, part in parts.items()}}


def word_match(
    settings: GanSettings, pictures: Sequence[Pictures], sides: Sequence[Side]
) -> Tensor:
    """The matching loss of regions of painted pictures with words, summed over branches."""
    return torch.stack([
        word_matching(one.regions, side.words, side.mask, _spared(settings, side))
        for one, side in zip(pictures, sides, strict=True)
    ]).sum()  # fmt: skip


def contrasted(
    settings: GanSettings,
    seen: Sequence[Tensor],
    sides: Sequence[Side],
    classifier: nn.Module | None = None,
) -> Tensor:
    """The arm that `settings.contrast` names, with its weights; see `nsync.supcon.contrast`.

    Texts are given, so there is nothing to be said to a generator by comparing them with each
    other, and "nt-xent" and "classifier" are of pictures alone.

    Args:
        seen: per branch float `[n, d]`, what the encoder sees in painted pictures.
    """
    images, texts = torch.cat(list(seen)), torch.cat([side.text for side in sides])
    labels = torch.cat([side.labels for side in sides])
    if settings.contrast in (NT_XENT, CLASSIFIER):
        texts = images  # a mean of twice the same
    elif settings.contrast_real:
        images = torch.cat([images, *(side.seen for side in sides)])
        texts, labels = texts.repeat(2, 1), torch.cat([labels, labels])
    total, _ = contrast(
        settings.contrast, images, texts, labels,
        weights=settings.weights, temperature=settings.temperature, classifier=classifier,
    )  # fmt: skip
    return total


def classifier_loss(classifier: nn.Module, sides: Sequence[Side]) -> Tensor:
    """Cross-entropy of what tells labels of features, on the real pictures of both branches."""
    labels = torch.cat([side.labels for side in sides])
    return classification(classifier(torch.cat([side.seen for side in sides])), labels)


def spread(seen: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """How varied painted pictures are, as a share of how varied the real ones of their texts are.

    Variance of the directions of features, over all branches. It goes to 0 where a generator has
    collapsed and paints one picture for all.

    Args:
        seen: per branch float `[n, d]`, what the encoder sees in painted pictures.
        real: per branch float `[n, d]`, in real ones.
    """
    painted, other = (F.normalize(torch.cat(list(each)), dim=1) for each in (seen, real))
    return painted.var(0).sum() / other.var(0).sum().clamp(min=1e-12)


def strangers(settings: GanSettings, side: Side) -> Tensor:
    """Bool `[n, n]`: the text of a column is wrong for the picture of a row.

    Items of one text are no strangers; nor are, with `settings.class_mask`, items that share a
    label, for they are pulled together elsewhere.
    """
    apart = side.texts[:, None] != side.texts[None]
    if settings.class_mask:
        apart = apart & (label_overlap(side.labels, side.labels) == 0)
    return apart


def shown(settings: GanSettings, images: Tensor, *keys: int | str) -> Tensor:
    """Pictures as a discriminator is shown them: changed by the draw that the keys name."""
    policies = settings.policies
    if not policies:
        return images
    source = generator(settings.seed, "change", *keys)
    return augment(images, draw_change(len(images), images.shape[-1], source, policies))


def sized(images: Tensor, size: int) -> Tensor:
    """Square pictures of another size: bilinear, smoothed where they shrink."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def _spared(settings: GanSettings, side: Side) -> Tensor:
    """What tells which texts are no wrong answers in the text match."""
    return side.labels if settings.class_mask else side.texts


def _judge(judge: Discriminator, images: Tensor, text: Tensor) -> Judged:
    return judge.judge(judge.features(judge.observe(images)), text)


def _judged(
    settings: GanSettings,
    judge: Discriminator,
    side: Side,
    painted: Tensor,
    apart: Tensor,
    place: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of one stage and branch: loss, penalties, and the scores (real, painted, mismatched)."""
    due = place[0] % settings.penalty_every == 0
    real = shown(settings, sized(side.images, painted.shape[-1]), *place, "real")
    observed = judge.observe(real).detach().requires_grad_(due)
    text = side.text.detach().requires_grad_(due)
    features = judge.features(observed)
    items, partners = mismatched(apart)
    matched = judge.judge(features, text)
    # Not of no pictures, of which batch normalisation would keep statistics.
    other = judge.judge(features[items], side.text[partners]) if len(items) else None
    fake = _judge(judge, shown(settings, painted.detach(), *place, "fake"), side.text)
    score, penalty = matched.score, matched.score.new_zeros(())
    if due and settings.penalty_weight:
        penalty = matching_aware_penalty(score, (observed, text), weight=settings.penalty_weight)
    if due and settings.r1_gamma:
        penalty = penalty + r1_penalty(score, observed, gamma=settings.r1_gamma)
    loss = adversarial.discriminator_loss(settings.adversarial, matched, fake, other)
    return loss, penalty, score, fake.score, score[:0] if other is None else other.score
