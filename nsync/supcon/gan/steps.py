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

Where each picture is judged by itself (`contract.Family.judges_alone`), both branches are judged at
once, as one batch whose terms weigh as those of two: the same sums, in half the calls. Generators
paint one branch after the other, for their batch normalisation spans a branch, as published.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...draws import generator
from ..contrast import CLASSIFIER, NT_XENT, contrast
from ..encoders import Encoders, Pictures
from ..losses import classification, matching
from ..words import word_matching
from . import adversarial
from .augment import augment, draw_change
from .contract import Discriminator, Judged, Painted
from .penalties import matching_aware_penalty, mismatched, r1_penalty
from .settings import GanSettings
from .sides import Side, joined, spared, strangers

Terms = dict[str, Tensor]
"""Numbers of a step by the names that the log has for them, each a scalar."""


def paint(painter: nn.Module, sides: Sequence[Side]) -> list[Painted]:
    """What the generator paints for each branch, one branch after the other."""
    return [painter(side.noise, side.text, side.words, side.mask) for side in sides]


def discriminator_loss(
    settings: GanSettings,
    discriminators: Sequence[Discriminator],
    sides: Sequence[Side],
    painted: Sequence[Painted],
    step: int,
    *,
    alone: bool = False,
) -> Terms:
    """What the discriminators of all stages are asked for; see the top.

    Args:
        painted: no gradients flow back to it.
        step: 0-based; it decides how pictures are changed, and whether the penalties are due. Due
            every k steps they have k times their weight (StyleGAN2, arXiv 1912.04958, section 3.1).
        alone: the discriminators judge each picture by itself. A wrong text is then one of either
            branch's.

    Returns:
        `loss_d`, to go backward from; the `penalty` in it, when one is due; mean scores of real
        pictures with their texts, of painted ones, and of real ones with other texts, where the
        batch has any: `score_real`, `score_fake`, `score_mismatched`.
    """
    weight, asked = _asked(discriminators, sides, painted, alone)
    judgements = [_judged(settings, one, (step, *place)) for place, one in asked.items()]
    losses, penalties, *scores = zip(*judgements, strict=True)
    told = {}
    total = weight * torch.stack(losses).sum()
    if step % settings.penalty_every == 0:
        told["penalty"] = weight * settings.penalty_every * torch.stack(penalties).sum()
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
    *,
    alone: bool = False,
) -> Terms:
    """What the generator is asked for; see the top.

    Args:
        alone: see `discriminator_loss`.

    Returns:
        `loss_g`, to go backward from; its parts, without their weights but for the last:
        `adversarial`, `match`, `word_match` where it has a weight, `divergence`, `contrast`; and
        `spread`, see there.
    """
    weight, asked = _asked(discriminators, sides, painted, alone)
    fooled = [
        adversarial.generator_loss(
            settings.adversarial,
            _judge(one.judge, shown(settings, one.painted, step, *place, "painted"), one.side.text),
        )
        for place, one in asked.items()
    ]
    pictures = _seen(encoders, [made.images[-1] for made in painted])
    seen = [one.whole for one in pictures]
    match = [
        matching(one, side.text, spared(settings, side))
        for one, side in zip(seen, sides, strict=True)
    ]
    parts = {
        "adversarial": weight * torch.stack(fooled).sum(),
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
        word_matching(one.regions, side.words, side.mask, spared(settings, side))
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


class _Asked(NamedTuple):
    """What a discriminator is asked about, in one call of it."""

    judge: Discriminator
    side: Side
    painted: Tensor


def _asked(
    discriminators: Sequence[Discriminator],
    sides: Sequence[Side],
    painted: Sequence[Painted],
    alone: bool,
) -> tuple[int, dict[tuple[int, int], _Asked]]:
    """Everything, by branch and stage, and how many branches each of them speaks for."""
    images = [made.images for made in painted]
    count = len(sides)
    if alone:
        sides, images = [joined(sides)], [[*map(torch.cat, zip(*images, strict=True))]]
    asked = {
        (branch, stage): _Asked(judge, side, picture)
        for branch, (side, stages) in enumerate(zip(sides, images, strict=True))
        for stage, (picture, judge) in enumerate(zip(stages, discriminators, strict=True))
    }
    return count // len(sides), asked


def _seen(encoders: Encoders, images: Sequence[Tensor]) -> list[Pictures]:
    """What the frozen image encoder sees in the pictures of each branch; each is seen by itself."""
    pictures = encoders.images(torch.cat(list(images)))
    counts = [len(each) for each in images]
    return [Pictures(*parts) for parts in zip(*(p.split(counts) for p in pictures), strict=True)]


def _judge(judge: Discriminator, images: Tensor, text: Tensor) -> Judged:
    return judge.judge(judge.features(judge.observe(images)), text)


def _judged(
    settings: GanSettings, asked: _Asked, place: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of one stage and branch: loss, penalties, and the scores (real, painted, mismatched)."""
    judge, side, painted = asked
    due = place[0] % settings.penalty_every == 0
    real = shown(settings, sized(side.images, painted.shape[-1]), *place, "real")
    observed = judge.observe(real).detach().requires_grad_(due)
    text = side.text.detach().requires_grad_(due)
    features = judge.features(observed)
    items, partners = mismatched(strangers(settings, side))
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
