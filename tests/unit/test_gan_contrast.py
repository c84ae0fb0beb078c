"""Every arm against the sums of its formula, number by number."""

import math
from dataclasses import replace

import pytest
import torch
from gan_files import normal
from gan_steps import SETTINGS, WIDTH

from nsync.supcon.gan.contrast import classifier_loss, contrast

LABELS = ([0, 1, 0, 2], [0, 1, 0, 2])
HEAT = SETTINGS.temperature


def rows(name):
    return [normal(f"{name} {branch}", 4, WIDTH) for branch in (0, 1)]


def features():
    return rows("painted"), rows("texts"), [torch.tensor(each) for each in LABELS], rows("real")


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def pull(anchors, candidates, labels, others, *, same=False):
    """Khosla et al., equation 2, the mean of the anchors that have a positive."""
    losses = []
    for i, anchor in enumerate(anchors):
        seen = [k for k in range(len(candidates)) if not (same and k == i)]
        scores = {k: math.exp(cosine(anchor, candidates[k]) / HEAT) for k in seen}
        positives = [k for k in seen if others[k] == labels[i]]
        if positives:
            below = sum(scores.values())
            losses.append(-sum(math.log(scores[k] / below) for k in positives) / len(positives))
    return sum(losses) / len(losses)


def made(settings, **given):
    painted, texts, labels, real = features()
    return contrast(settings, painted, texts, labels, real, **given).item()


def both(name):
    return [row for branch in rows(name) for row in branch.tolist()]


ALL = [*LABELS[0], *LABELS[1]]


def test_supcon_is_inter_and_inner_over_both_branches():
    settings = replace(SETTINGS, contrast="supcon", inter_weight=0.3, inner_weight=0.7)
    images, texts = both("painted"), both("texts")
    inter = (pull(images, texts, ALL, ALL) + pull(texts, images, ALL, ALL)) / 2
    inner = pull(images, images, ALL, ALL, same=True)
    assert made(settings) == pytest.approx(0.3 * inter + 0.7 * inner, rel=1e-12)
    assert made(replace(settings, inner_weight=0.0)) == pytest.approx(0.3 * inter, rel=1e-12)
    assert made(replace(settings, inter_weight=0.0)) == pytest.approx(0.7 * inner, rel=1e-12)


def test_supcon_with_the_real_pictures_beside_the_painted_ones():
    settings = replace(
        SETTINGS, contrast="supcon", inter_weight=0.3, inner_weight=0.7, contrast_real=True
    )
    images, texts = [*both("painted"), *both("real")], both("texts")
    twice = ALL * 2
    inter = (pull(images, texts, twice, ALL) + pull(texts, images, ALL, twice)) / 2
    inner = pull(images, images, twice, twice, same=True)
    assert made(settings) == pytest.approx(0.3 * inter + 0.7 * inner, rel=1e-12)


def test_unicl_is_inter_within_each_branch():
    total = 0.0
    for branch in (0, 1):
        images, texts = rows("painted")[branch].tolist(), rows("texts")[branch].tolist()
        labels = LABELS[branch]
        total += pull(images, texts, labels, labels) / 4 + pull(texts, images, labels, labels) / 4
    settings = replace(SETTINGS, contrast="unicl", inter_weight=0.3, inner_weight=9.0)
    assert made(settings) == pytest.approx(0.3 * total, rel=1e-12)


def test_nt_xent_is_the_row_of_the_other_branch_without_labels():
    images, items = both("painted"), [*range(4), *range(4)]
    settings = replace(SETTINGS, contrast="nt-xent", inner_weight=0.3, inter_weight=9.0)
    assert made(settings) == pytest.approx(0.3 * pull(images, images, items, items, same=True))


def entropy_plainly(images, labels, head):
    total = 0.0
    for image, label in zip(images, labels, strict=True):
        unit = [x / math.hypot(*image) / HEAT for x in image]
        weights, biases = head.weight.tolist(), head.bias.tolist()
        logits = [
            sum(w * x for w, x in zip(row, unit, strict=True)) + b
            for row, b in zip(weights, biases, strict=True)
        ]
        total -= logits[label] - math.log(sum(map(math.exp, logits)))
    return total / len(images)


def test_the_classifier_learns_real_pictures_and_judges_painted_ones():
    head = torch.nn.Linear(WIDTH, 3).double()
    settings = replace(SETTINGS, contrast="classifier", inner_weight=0.3, inter_weight=9.0)
    _, _, labels, real = features()
    learned = classifier_loss(settings, head, real, labels).item()
    assert learned == pytest.approx(entropy_plainly(both("real"), ALL, head), rel=1e-6)
    judged = entropy_plainly(both("painted"), ALL, head)
    assert made(settings, classifier=head) == pytest.approx(0.3 * judged, rel=1e-6)


def test_no_contrast_is_nothing():
    assert made(replace(SETTINGS, contrast="none", inter_weight=9.0)) == 0


@pytest.mark.parametrize("arm", ["supcon", "unicl", "nt-xent"])
def test_only_painted_pictures_are_pulled(arm):
    painted, texts, labels, real = features()
    given = [each.requires_grad_() for each in (*painted,)]
    settings = replace(SETTINGS, contrast=arm, contrast_real=True)
    slopes = torch.autograd.grad(contrast(settings, given, texts, labels, real), given)
    assert all(slope.abs().sum(1).min() > 0 for slope in slopes)
