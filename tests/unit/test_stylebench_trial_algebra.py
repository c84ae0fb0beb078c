"""What the trials compute, held to numpy in float64 and to torch's own Adam."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.stylebench.trials.algebra import (
    RunningAverage,
    adam_scale,
    dpo_weights,
    out_of_span,
)


def vectors(count: int, length: int = 400, seed: int = 1) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, length, dtype=torch.float64, generator=source)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_out_of_the_span_is_what_least_squares_leave(count: int, scale: float) -> None:
    vector, *others = vectors(count + 1)
    matrix = torch.stack(others).T.numpy()
    weights, *_ = np.linalg.lstsq(matrix, vector.numpy(), rcond=None)
    expected = vector.numpy() - matrix @ weights
    found = out_of_span(vector * scale, [other * scale**0.5 for other in others]) / scale
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_nearly_parallel_vectors_span_a_plane() -> None:
    vector, first, second = vectors(3)
    near = first + 1e-6 * second
    found = out_of_span(vector, [first, near])
    expected = out_of_span(vector, [first, second])
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert abs(torch.dot(found, first)) < 1e-10
    assert abs(torch.dot(found, second)) < 1e-6


def test_what_spans_nothing_removes_nothing() -> None:
    vector, other = vectors(2)
    nothing = torch.zeros_like(vector)
    assert torch.equal(out_of_span(vector, [nothing]), vector)
    once = out_of_span(vector, [other])
    assert torch.equal(out_of_span(vector, [other, 2 * other, nothing, -other]), once)
    assert out_of_span(other, [other]).norm() < 1e-12
    assert out_of_span(vector.float(), [other.float()]).dtype == torch.float32


def test_a_running_average_has_the_weights_of_the_paper() -> None:
    decay, values = 0.8, vectors(6)
    average = RunningAverage(decay)
    for count in range(1, 7):
        found = average.add([values[count - 1, :100].float(), values[count - 1, 100:].float()])
        weights = np.array([(1 - decay) * decay ** (count - i) for i in range(1, count + 1)])
        assert weights.sum() / (1 - decay**count) == pytest.approx(1)
        expected = (weights @ values[:count].numpy()) / (1 - decay**count)
        assert [len(one) for one in found] == [100, 300]
        np.testing.assert_allclose(torch.cat(found), expected, atol=1e-6)


def test_the_metric_is_that_of_adams_own_step() -> None:
    """A gradient of Adam's first moment, divided by the metric's weight, is the step it makes."""
    weight = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=1.0, betas=(0.0, 0.999), weight_decay=0.0)
    for gradient in vectors(4, 50) * torch.logspace(-9, 3, 50, dtype=torch.float64):
        before, weight.grad = weight.detach().clone(), gradient
        optimizer.step()
        state = optimizer.state[weight]
        scale = adam_scale(state["exp_avg_sq"], int(state["step"]))
        step = before - weight.detach()
        np.testing.assert_allclose(scale.square() * gradient, step, rtol=1e-7, atol=1e-12)
    defaults = torch.optim.AdamW([weight]).defaults
    assert (defaults["betas"][1], defaults["eps"]) == (0.999, 1e-8)


def test_the_bounded_weights_are_those_of_the_papers_loss() -> None:
    """Autograd of equation 14 gives weight * beta / 2 for the losses."""
    positive, negative, before_p, before_n = vectors(4, 9).abs().unbind()
    positive.requires_grad_()
    negative.requires_grad_()
    beta = 3.0
    inside = -beta / 2 * ((positive - before_p) - (negative - before_n))
    loss = -nn.functional.logsigmoid(inside).sum()
    of_p, of_n = torch.autograd.grad(loss, [positive, negative])
    weights = dpo_weights(beta, positive.detach(), before_p, negative.detach(), before_n)
    np.testing.assert_allclose(weights * beta / 2, of_p, rtol=1e-12)
    np.testing.assert_allclose(-weights * beta / 2, of_n, rtol=1e-12)


def test_the_push_is_bounded() -> None:
    one = torch.ones(1)
    assert dpo_weights(100.0, one, one, one, one) == 0.5
    assert dpo_weights(100.0, 0.5 * one, one, 1.5 * one, one) < 1e-10  # told apart: no push left
    assert dpo_weights(100.0, 1.5 * one, one, 0.5 * one, one) > 0.999
