"""Losses against hand values, closed forms, and finite differences in float64."""

import pytest
import torch
from gan_files import normal
from torch import nn

from nsync.errors import InputError
from nsync.supcon.gan.penalties import (
    discriminator_hinge,
    generator_hinge,
    matching_aware_penalty,
    mismatched,
    r1_penalty,
)


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    other = torch.tensor([-0.5, 1.0, -2.0, 3.0])
    # real: 0, 0.5, 2; fake: 0, 1; other: 0.5, 2, 0, 4
    assert discriminator_hinge(real, fake).item() == pytest.approx(2.5 / 3 + 0.5)
    both = 2.5 / 3 + (0.5 + 6.5 / 4) / 2
    assert discriminator_hinge(real, fake, other).item() == pytest.approx(both)
    none = discriminator_hinge(real, fake, other[:0])
    assert none.item() == pytest.approx(2.5 / 3 + 0.5)
    assert generator_hinge(fake).item() == pytest.approx(1.5)


def test_losses_of_half_precision_are_computed_in_single():
    scores = (normal("s", 4001) + 300).bfloat16()
    assert generator_hinge(scores).item() == pytest.approx(-scores.double().mean().item(), rel=1e-6)
    loss = discriminator_hinge(-scores, scores, scores)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(2 * (1 + scores.double().mean().item()), rel=1e-6)


def mismatched_plainly(texts):
    found = []
    for i in range(len(texts)):
        for step in range(1, len(texts)):
            j = (i + step) % len(texts)
            if texts[j] != texts[i]:
                found.append((i, j))
                break
    return found


@pytest.mark.parametrize(
    "texts", [[3, 1, 2], [0, 0, 1, 1, 0], [5, 5, 5], [4], [], [1, 1, 1, 2, 2, 7, 1, 1]]
)
def test_mismatched_texts_are_the_next_wrong_ones(texts):
    numbers = torch.tensor(texts, dtype=torch.long)
    items, partners = mismatched(numbers[:, None] != numbers[None])
    pairs = list(zip(items.tolist(), partners.tolist(), strict=True))
    assert pairs == mismatched_plainly(texts)


def test_what_is_apart_need_not_be_so_both_ways():
    apart = torch.tensor([[0, 0, 1], [0, 0, 0], [0, 1, 0]]).bool()
    items, partners = mismatched(apart)
    assert (items.tolist(), partners.tolist()) == ([0, 2], [2, 1])


def test_mismatched_takes_a_square_table_only():
    for apart in (torch.rand(4, 4), torch.zeros(3, 2, dtype=torch.bool)):
        with pytest.raises(InputError, match=r"bool \[n, n\]"):
            mismatched(apart)


def linear(power):
    """Score a.x + b.t per item: the gradient is (a, b) everywhere."""
    a, b = normal("a", 12).requires_grad_(), normal("b", 5).requires_grad_()
    x = normal("x", 4, 3, 2, 2).requires_grad_()
    t = normal("t", 4, 5).requires_grad_()
    norm = (a.detach().square().sum() + b.detach().square().sum()) ** 0.5
    return a, x, t, x.flatten(1) @ a + t @ b, norm**power


def test_penalties_of_a_linear_discriminator_in_closed_form():
    a, x, t, score, sixth = linear(6)
    penalty = matching_aware_penalty(score, (x, t))
    assert penalty.item() == pytest.approx(2 * sixth.item(), rel=1e-12)
    # d/da 2 (|a|^2 + |b|^2)^3 = 12 (|a|^2 + |b|^2)^2 a
    [slope] = torch.autograd.grad(penalty, a)
    square = sixth ** (1 / 3)
    assert torch.allclose(slope, 12 * square**2 * a.detach(), rtol=1e-10)
    a, x, t, score, fourth = linear(4)
    penalty = matching_aware_penalty(score, (x, t), weight=0.5, power=4)
    assert penalty.item() == pytest.approx(0.5 * fourth.item(), rel=1e-12)
    assert r1_penalty(score, x).item() == pytest.approx(5 * a.square().sum().item(), rel=1e-12)


class Bent(nn.Module):
    """A small discriminator that is not linear; items do not mix."""

    def __init__(self):
        super().__init__()
        self.see, self.read = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, x, t):
        return (self.see(x).tanh().mean((2, 3)) * self.read(t).tanh()).sum(1)


def test_penalties_by_finite_differences():
    torch.manual_seed(1)
    net = Bent().double()
    x, t = normal("x", 3, 3, 5, 5).requires_grad_(), normal("t", 3, 5).requires_grad_()
    norms, visual, step = [], [], 1e-6
    for i in range(3):
        total = {"x": 0.0, "t": 0.0}
        for name, value in (("x", x), ("t", t)):
            for k in range(value[i].numel()):
                moved = []
                for sign in (1, -1):
                    given = {"x": x.detach().clone(), "t": t.detach().clone()}
                    given[name][i].view(-1)[k] += sign * step
                    moved.append(net(**given)[i].item())
                total[name] += ((moved[0] - moved[1]) / (2 * step)) ** 2
        norms.append(sum(total.values()))
        visual.append(total["x"])
    penalty = matching_aware_penalty(net(x, t), (x, t))
    assert penalty.item() == pytest.approx(2 * sum(n**3 for n in norms) / 3, rel=1e-6)
    assert r1_penalty(net(x, t), x, gamma=4).item() == pytest.approx(2 * sum(visual) / 3, rel=1e-6)


def test_gradients_of_penalties_by_finite_differences():
    torch.manual_seed(1)
    net = Bent().double()
    x, t = normal("x", 2, 3, 4, 4).requires_grad_(), normal("t", 2, 5).requires_grad_()

    def penalised(weight):
        def scored(*given):
            return torch.func.functional_call(net, {"see.weight": weight}, given)

        return matching_aware_penalty(scored(x, t), (x, t)) + r1_penalty(scored(x, t), x)

    assert torch.autograd.gradcheck(penalised, (net.see.weight.detach().requires_grad_(),))


def test_a_flat_discriminator_has_a_penalty_of_nothing():
    """Where the published square root has a gradient of NaN."""
    scale = torch.zeros((), requires_grad=True)
    x, t = torch.ones(2, 3, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    score = scale * (x.sum(1) + t.sum(1))
    penalty = matching_aware_penalty(score, (x, t)) + r1_penalty(score, x)
    penalty.backward()
    assert penalty.item() == 0
    assert scale.grad.item() == 0


def test_half_precision_is_penalised_in_single():
    """A sixth power overflows float16 from a norm of 6.3 on."""
    x, t = (normal(k, 3, 4).half().requires_grad_() for k in "xt")
    penalty = matching_aware_penalty((10 * x).sum(1) + t.sum(1), (x, t))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(2 * 404.0**3, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x, s: matching_aware_penalty(s, (x, x.detach())), "require gradients.*input 1"),
        (lambda x, s: matching_aware_penalty(s[:1], (x,)), "1 rows"),
        (lambda x, s: r1_penalty(s, x.detach()), "require gradients"),
        (lambda x, s: matching_aware_penalty(s, (x,), power=3), "even number"),
        (lambda x, s: matching_aware_penalty(s, (x,), power=0), "even number"),
    ],
)
def test_bad_input_is_one_error(call, text):
    x = normal("x", 3, 4).requires_grad_()
    with pytest.raises(InputError, match=text):
        call(x, x.sum(1))
