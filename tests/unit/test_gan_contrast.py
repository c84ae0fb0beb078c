"""Every arm of the contrast against the sums of its formula, number by number."""

import math
from dataclasses import replace

import pytest
import torch
from gan_files import normal
from gan_steps import SETTINGS, WIDTH, side

from nsync.supcon.gan.steps import classifier_loss, contrasted

LABELS = [0, 1, 0, 2]
ALL = [*LABELS, *LABELS]
HEAT = SETTINGS.temperature
GIVEN = replace(SETTINGS, image_image=0.2, image_text=0.3, text_image=0.5)


def sides():
    return [side(branch, LABELS, [4 * branch + k for k in range(4)]) for branch in (0, 1)]


def seen():
    return [normal(f"painted {branch}", 4, WIDTH) for branch in (0, 1)]


def rows(branches):
    """Those of branch 1 first, as numbers."""
    return [row for branch in branches for row in branch.tolist()]


def painted():
    return rows(seen())


def texts():
    return rows(one.text for one in sides())


def real():
    return rows(one.seen for one in sides())


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def pull(anchors, candidates, labels, others, *, same=False):
    """Khosla et al., equation 2, the mean of the anchors that have a positive."""
    losses = []
    for i, anchor in enumerate(anchors):
        among = [k for k in range(len(candidates)) if not (same and k == i)]
        scores = {k: math.exp(cosine(anchor, candidates[k]) / HEAT) for k in among}
        positives = [k for k in among if others[k] == labels[i]]
        if positives:
            below = sum(scores.values())
            losses.append(-sum(math.log(scores[k] / below) for k in positives) / len(positives))
    return sum(losses) / len(losses)


def made(settings, **given):
    return contrasted(settings, seen(), sides(), **given).item()


def test_supcon_is_inter_and_inner_over_both_branches():
    settings = replace(GIVEN, contrast="supcon")
    inner = pull(painted(), painted(), ALL, ALL, same=True)
    told = pull(painted(), texts(), ALL, ALL)
    shown = pull(texts(), painted(), ALL, ALL)
    assert made(settings) == pytest.approx(0.2 * inner + 0.3 * told + 0.5 * shown, rel=1e-12)
    alone = replace(settings, image_text=0.0, text_image=0.0)
    assert made(alone) == pytest.approx(0.2 * inner, rel=1e-12)
    inter = replace(settings, image_image=0.0)
    assert made(inter) == pytest.approx(0.3 * told + 0.5 * shown, rel=1e-12)


def test_real_pictures_stand_beside_the_painted_ones_with_the_same_texts():
    settings = replace(GIVEN, contrast="supcon", contrast_real=True)
    images, words, labels = [*painted(), *real()], texts() * 2, ALL * 2
    inner = pull(images, images, labels, labels, same=True)
    told, shown = pull(images, words, labels, labels), pull(words, images, labels, labels)
    assert made(settings) == pytest.approx(0.2 * inner + 0.3 * told + 0.5 * shown, rel=1e-12)


def test_unicl_is_inter_alone_with_the_whole_weight():
    both = pull(painted(), texts(), ALL, ALL) + pull(texts(), painted(), ALL, ALL)
    assert made(replace(GIVEN, contrast="unicl")) == pytest.approx(both / 2, rel=1e-12)


def test_nt_xent_is_the_row_of_the_other_branch_without_labels():
    items = [*range(4), *range(4)]
    expected = pull(painted(), painted(), items, items, same=True)
    assert made(replace(GIVEN, contrast="nt-xent")) == pytest.approx(expected, rel=1e-12)
    several = replace(GIVEN, contrast="nt-xent", contrast_real=True)
    assert made(several) == pytest.approx(expected, rel=1e-12)


def entropy_plainly(images, head):
    total = 0.0
    for image, label in zip(images, ALL, strict=True):
        logits = [
            sum(w * x for w, x in zip(row, image, strict=True)) + b
            for row, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
        ]
        total -= logits[label] - math.log(sum(map(math.exp, logits)))
    return total / len(images)


def test_the_classifier_learns_real_pictures_and_judges_painted_ones():
    head = torch.nn.Linear(WIDTH, 3).double()
    assert classifier_loss(head, sides()).item() == pytest.approx(entropy_plainly(real(), head))
    settings = replace(GIVEN, contrast="classifier")
    judged = entropy_plainly(painted(), head)
    assert made(settings, classifier=head) == pytest.approx(judged, rel=1e-6)


def test_no_contrast_is_nothing():
    assert made(replace(GIVEN, contrast="none")) == 0


@pytest.mark.parametrize("arm", ["supcon", "unicl", "nt-xent"])
def test_every_painted_picture_is_pulled(arm):
    given = [each.requires_grad_() for each in seen()]
    settings = replace(GIVEN, contrast=arm)
    slopes = torch.autograd.grad(contrasted(settings, given, sides()), given)
    assert all(slope.abs().sum(1).min() > 0 for slope in slopes)
