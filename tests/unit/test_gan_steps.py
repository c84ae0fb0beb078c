"""The losses of a step against plain sums, item by item, and finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from gan_files import normal
from gan_steps import SETTINGS, Eyes, networks, side, sides

from nsync.draws import generator
from nsync.supcon.gan.attn_gan import AttnGan
from nsync.supcon.gan.augment import augment, draw_change
from nsync.supcon.gan.sides import joined, strangers
from nsync.supcon.gan.steps import (
    discriminator_loss,
    generator_loss,
    paint,
    shown,
    sized,
    spread,
)


def scored(judge, images, text):
    return judge.judge(judge.features(judge.observe(images)), text).score


def partner(row, one):
    """The next item, around the end, of another label and another text; None if there is none."""
    count = len(one.labels)
    for step in range(1, count):
        other = (row + step) % count
        if one.labels[other] != one.labels[row] and one.texts[other] != one.texts[row]:
            return other
    return None


def halved(images):
    """Half the side, bilinear and smoothed, number by number: a triangle of weights 1 3 3 1."""
    count, channels, size, _ = images.shape
    made = torch.zeros(count, channels, size // 2, size // 2, dtype=images.dtype)

    def weights(place):
        near = {2 * place - 1: 1, 2 * place: 3, 2 * place + 1: 3, 2 * place + 2: 1}
        inside = {k: w for k, w in near.items() if 0 <= k < size}
        return {k: w / sum(inside.values()) for k, w in inside.items()}

    for y in range(size // 2):
        for x in range(size // 2):
            for v, one in weights(y).items():
                for u, other in weights(x).items():
                    made[:, :, y, x] += one * other * images[:, :, v, u]
    return made


def discriminator_plainly(judges, batches, painted):
    """The loss without penalties, and the scores."""
    total, seen = 0.0, {"real": [], "fake": [], "mismatched": []}
    for one, made in zip(batches, painted, strict=True):
        for images, judge in zip(made.images, judges, strict=True):
            real = one.images if images.shape[-1] == 8 else halved(one.images)
            rows = range(len(real))
            right = scored(judge, real, one.text).tolist()
            fake = scored(judge, images, one.text).tolist()
            pairs = [(row, partner(row, one)) for row in rows if partner(row, one) is not None]
            wrong = [
                scored(judge, real[[i]], one.text[[j]]).item() for i, j in pairs
            ]  # row by row: items do not mix
            half = 0.5 if wrong else 1.0
            total += sum(max(0, 1 - s) for s in right) / len(right)
            total += half * sum(max(0, 1 + s) for s in fake) / len(fake)
            total += half * sum(max(0, 1 + s) for s in wrong) / max(1, len(wrong))
            for name, scores in zip(seen, (right, fake, wrong), strict=True):
                seen[name] += scores
    return total, {f"score_{k}": sum(v) / len(v) for k, v in seen.items() if v}


def test_the_discriminators_loss_is_the_sum_over_branches_and_stages():
    painter, judges = networks()
    painted = paint(painter, sides())
    settings = replace(SETTINGS, penalty_every=3)
    terms = discriminator_loss(settings, judges, sides(), painted, step=1)
    expected, scores = discriminator_plainly(judges, sides(), painted)
    assert terms.pop("loss_d").item() == pytest.approx(expected, rel=1e-12)
    assert terms.keys() == scores.keys()
    for name, value in scores.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-6), name


def test_judged_at_once_two_branches_are_one_batch_that_weighs_as_two():
    painter, judges = networks()
    batches, both = sides(), joined(sides())
    painted = paint(painter, batches)
    stages = [torch.cat(pair) for pair in zip(*(made.images for made in painted), strict=True)]
    made = painted[0]._replace(images=tuple(stages))
    settings = replace(SETTINGS, penalty_weight=0.7, r1_gamma=0.3)
    calls = []
    for judge in judges:
        judge.see.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    together = discriminator_loss(settings, judges, batches, painted, 1, alone=True)
    assert calls == 4 * [10]
    apart = discriminator_loss(settings, judges, batches, painted, 1)
    assert together["penalty"].item() == pytest.approx(apart["penalty"].item(), rel=1e-12)
    expected, scores = discriminator_plainly(judges, [both], [made])
    expected = 2 * expected + apart["penalty"].item()
    assert together["loss_d"].item() == pytest.approx(expected, rel=1e-12)
    for name, value in scores.items():
        assert together[name].item() == pytest.approx(value, rel=1e-6), name
    wanted = [
        generator_loss(settings, judges, Eyes(), batches, painted, 1, alone=alone)
        for alone in (False, True)
    ]
    assert wanted[0].keys() == wanted[1].keys()
    for name, value in wanted[0].items():
        assert wanted[1][name].item() == pytest.approx(value.item(), rel=1e-12), name


def norm_by_differences(judge, images, text, step=1e-6):
    """Of the gradient of each item's score by what is observed, and by the text; apart."""
    norms = []
    for row in range(len(images)):
        squares = []
        for which in (0, 1):
            given = [judge.observe(images[[row]]), text[[row]].clone()]
            square = 0.0
            for place in range(given[which].numel()):
                ends = []
                for sign in (1, -1):
                    moved = [each.clone() for each in given]
                    moved[which].view(-1)[place] += sign * step
                    ends.append(judge.judge(judge.features(moved[0]), moved[1]).score.item())
                square += ((ends[0] - ends[1]) / (2 * step)) ** 2
            squares.append(square)
        norms.append(squares)
    return norms


@pytest.mark.parametrize(("every", "step"), [(1, 3), (4, 8)])
def test_penalties_of_real_pictures_with_their_texts(every, step):
    """Due every few steps, they weigh so many times more."""
    painter, judges = networks()
    settings = replace(SETTINGS, penalty_weight=0.7, r1_gamma=0.3, penalty_every=every)
    batches = sides()
    painted = paint(painter, batches)
    terms = discriminator_loss(settings, judges, batches, painted, step)
    expected = 0.0
    with torch.no_grad():
        for one in batches:
            for judge, real in zip(judges, (halved(one.images), one.images), strict=True):
                norms = norm_by_differences(judge, real, one.text)
                expected += sum(0.7 * (a + b) ** 3 + 0.15 * a for a, b in norms) / len(norms)
    assert terms["penalty"].item() == pytest.approx(every * expected, rel=1e-6)
    bare, _ = discriminator_plainly(judges, batches, painted)
    assert terms["loss_d"].item() == pytest.approx(bare + every * expected, rel=1e-6)


def test_a_penalty_that_is_not_due_is_not_there():
    painter, judges = networks()
    painted = paint(painter, sides())
    settings = replace(SETTINGS, penalty_every=4)
    assert "penalty" not in discriminator_loss(settings, judges, sides(), painted, step=2)
    none = replace(SETTINGS, penalty_weight=0.0)
    assert discriminator_loss(none, judges, sides(), painted, step=0)["penalty"] == 0


def test_only_the_discriminators_are_asked_by_their_loss():
    painter, judges = networks()
    batches = sides()
    loss = discriminator_loss(SETTINGS, judges, batches, paint(painter, batches), 0)["loss_d"]
    loss.backward()
    assert all(value.grad is not None for value in judges.parameters())
    assert all(value.grad is None for value in painter.parameters())
    assert not any(each.requires_grad for one in batches for each in one)


def test_items_of_one_label_or_of_one_text_are_no_strangers():
    one = side(0, [0, 0, 1, 2], [0, 1, 2, 2])
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert strangers(SETTINGS, one).int().tolist() == expected
    several = one._replace(labels=torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]))
    expected = [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert strangers(SETTINGS, several).int().tolist() == expected


def test_without_the_mask_only_items_of_one_text_are_no_strangers():
    lifted = replace(SETTINGS, class_mask=False)
    one = side(0, [0, 0, 0, 0], [0, 1, 2, 2])
    expected = [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert strangers(lifted, one).int().tolist() == expected
    painter, judges = networks()
    painted = paint(painter, [one])
    terms = generator_loss(lifted, judges, Eyes(), [one], painted, step=1)
    seen = Eyes().images(halved(painted[0].images[-1])).whole
    match = matching_plainly(seen.tolist(), one.text.tolist(), [0, 1, 2, 2])
    assert terms["match"].item() == pytest.approx(match, rel=1e-6)
    both = discriminator_loss(lifted, judges, [one], painted, step=1)
    assert "score_mismatched" in both


def test_a_batch_of_one_label_has_no_mismatched_texts():
    painter, judges = networks()
    batches = [side(k, [1, 1, 1], [0, 1, 2]) for k in (0, 1)]
    settings, painted = replace(SETTINGS, penalty_every=2), paint(painter, batches)
    terms = discriminator_loss(settings, judges, batches, painted, step=1)
    expected, _ = discriminator_plainly(judges, batches, painted)
    assert terms["loss_d"].item() == pytest.approx(expected, rel=1e-12)
    assert "score_mismatched" not in terms


def test_no_mismatched_texts_leave_no_statistics():
    """Of a discriminator with batch normalisation."""
    torch.manual_seed(0)
    family = AttnGan(
        16, stages=2, width=2, discriminator_width=2, noise=2, text_width=4, condition_width=1
    )
    painter, judges = (network.double() for network in family.build())
    settings = replace(SETTINGS, adversarial="cross-entropy", penalty_weight=0.0)
    batches = [side(k, [1, 1, 1], [0, 1, 2]) for k in (0, 1)]
    batches = [one._replace(images=normal("p", 3, 3, 16, 16)) for one in batches]
    discriminator_loss(settings, judges, batches, paint(painter, batches), 1)
    for name, value in judges.state_dict().items():
        assert value.isfinite().all(), name
        # Features of real and of painted pictures, or both with their texts, in two branches.
        assert "num_batches" not in name or value == 4, name


def matching_plainly(images, texts, labels):
    """Both ways, at 0.1; others of the same label are left out."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    total, count = 0.0, len(images)
    for rows, columns in ((images, texts), (texts, images)):
        for i in range(count):
            seen = [k for k in range(count) if k == i or labels[k] != labels[i]]
            scores = {k: math.exp(cosine(rows[i], columns[k]) / 0.1) for k in seen}
            total -= math.log(scores[i] / sum(scores.values())) / count / 2
    return total


def test_the_generators_loss_is_adversarial_and_match_and_contrast():
    painter, judges = networks()
    settings = replace(SETTINGS, match_weight=0.3, divergence_weight=0.2, contrast="none")
    batches = sides()
    painted = paint(painter, batches)
    terms = generator_loss(settings, judges, Eyes(), batches, painted, step=1)
    adversarial = match = divergence = 0.0
    for one, made in zip(batches, painted, strict=True):
        for images, judge in zip(made.images, judges, strict=True):
            adversarial -= sum(scored(judge, images, one.text).tolist()) / len(images)
        seen = Eyes().images(halved(made.images[-1])).whole
        divergence += sum(made.divergence.tolist()) / len(made.divergence)
        match += matching_plainly(seen.tolist(), one.text.tolist(), one.labels.tolist())
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-12)
    assert terms["match"].item() == pytest.approx(match, rel=1e-6)
    assert terms["contrast"].item() == 0
    assert terms["divergence"].item() == pytest.approx(divergence, rel=1e-12)
    expected = adversarial + 0.3 * match + 0.2 * divergence
    assert terms["loss_g"].item() == pytest.approx(expected, rel=1e-6)
    with_labels = generator_loss(
        replace(settings, contrast="supcon"), judges, Eyes(), batches, painted, step=1
    )
    added = with_labels["loss_g"] - terms["loss_g"]
    assert added.item() == pytest.approx(with_labels["contrast"].item(), rel=1e-6)
    assert with_labels["contrast"] > 0


def test_the_generators_gradient_by_finite_differences():
    """Through both stages, the augmentation, the encoder and the contrast."""
    painter, judges = networks()
    batches = [side(k, [0, 1, 0], [3 * k, 3 * k + 1, 3 * k + 2]) for k in (0, 1)]

    def loss(weight):
        def painted(one):
            inputs = (one.noise, one.text, one.words, one.mask)
            return torch.func.functional_call(painter, {"large.weight": weight}, inputs)

        stages = [painted(one) for one in batches]
        return generator_loss(SETTINGS, judges, Eyes(), batches, stages, 0)["loss_g"]

    weight = painter.large.weight.detach().clone().requires_grad_()
    [slope] = torch.autograd.grad(loss(weight), weight)
    for row, column in ((0, 0), (50, 2), (100, 5), (191, 9)):
        ends = []
        for sign in (1, -1):
            moved = weight.detach().clone()
            moved[row, column] += sign * 1e-5
            ends.append(loss(moved).item())
        assert slope[row, column].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_pictures_are_changed_by_a_draw_that_has_a_name():
    images = normal("p", 3, 3, 8, 8)
    settings = replace(SETTINGS, augmentation="translation and cutout", seed=4)
    here = shown(settings, images, 7, 0, 1, "real")
    change = draw_change(3, 8, generator(4, "change", 7, 0, 1, "real"), settings.policies)
    assert torch.equal(here, augment(images, change))
    names = [(7, 0, 1, "fake"), (8, 0, 1, "real"), (7, 1, 1, "real"), (7, 0, 0, "real")]
    for name in names:
        assert not torch.equal(here, shown(settings, images, *name))
    assert not torch.equal(here, shown(replace(settings, seed=5), images, 7, 0, 1, "real"))
    assert shown(SETTINGS, images, 7) is images


def test_real_and_painted_pictures_are_changed_before_they_are_judged():
    """By a discriminator that sees what it is shown: every judged batch is a changed one."""
    painter, _ = networks()
    settings = replace(SETTINGS, augmentation="translation", penalty_every=2)
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self, judge):
            super().__init__()
            self.inner = judge

        def observe(self, images):
            seen.append(images.detach())
            return self.inner.observe(images)

        def __getattr__(self, name):
            return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)

    _, [_, judge] = networks()
    batches = sides()
    painted = [made._replace(images=made.images[1:]) for made in paint(painter, batches)]
    discriminator_loss(settings, [Watching(judge)], batches, painted, 1)
    generator_loss(settings, [Watching(judge)], Eyes(), batches, painted, 1)
    expected = []
    for branch, one in enumerate(batches):
        expected.append(shown(settings, one.images, 1, branch, 0, "real"))
        expected.append(shown(settings, painted[branch].images[0], 1, branch, 0, "fake"))
    for branch in (0, 1):
        expected.append(shown(settings, painted[branch].images[0], 1, branch, 0, "painted"))
    assert len(seen) == 6
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_pictures_of_another_size_are_smoothed():
    images = normal("p", 2, 3, 8, 8)
    assert torch.allclose(sized(images, 4), halved(images), atol=1e-12)
    assert sized(images, 8) is images


def test_spread_is_the_variance_of_directions_as_a_share():
    def variance(branches):
        rows = [row for one in branches for row in one.tolist()]
        units = [[x / math.hypot(*row) for x in row] for row in rows]
        means = [sum(column) / len(units) for column in zip(*units, strict=True)]
        squares = [sum((x - m) ** 2 for x, m in zip(u, means, strict=True)) for u in units]
        return sum(squares) / (len(units) - 1)

    seen, real = ([normal(f"{name} {k}", 4, 3) for k in (0, 1)] for name in ("seen", "real"))
    assert spread(seen, real).item() == pytest.approx(variance(seen) / variance(real), rel=1e-12)
    one = normal("seen", 1, 3).expand(4, 3)
    assert spread([one, 7 * one], real).item() == pytest.approx(0, abs=1e-12)
