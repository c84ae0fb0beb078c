"""released-4.1 and released-4.2 against the order of operations of the authors' code.

Their training step calls backward for positives, negatives and anchors in turn, without
zero_grad in between, and clones `.grad` after each: the clones hold g_p, g_p + g_n and
g_p + g_n + g_a. v4.1 then takes clone 1 - proj(clone 1 on clone 2); v4.2 adds proj(clone 1 on
clone 1) where an anchor was meant, so that the third clone never enters. What is compared here is
every weight after every optimizer step.
"""

import pytest
import torch
from torch import Tensor, nn

from nsync.rules import refine

STEPS = 5
BRANCHES = ("positive", "negative", "anchor")
VERSIONS = ("released-4.1", "released-4.2")
TOKEN = 7


class TinyDenoiser(nn.Module):
    """Predicts noise from a noisy latent, its time and the mean of a prompt's embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(8, 6)
        self.into = nn.Conv2d(2, 6, 3, padding=1)
        self.out = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, noisy: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        condition = self.tokens(prompt).mean(1) + time[:, None]
        return self.out(torch.tanh(self.into(noisy) + condition[:, :, None, None]))


def _model(dtype):
    torch.manual_seed(0)
    return TinyDenoiser().to(dtype)


def _loss(model, step, branch):
    """Mean denoising loss on the branch's own pictures, prompts, times and noise at this step."""
    draw = torch.Generator().manual_seed(10 * step + BRANCHES.index(branch))
    dtype = model.out.weight.dtype
    latents, noise = torch.randn(2, 2, 2, 4, 4, generator=draw).to(dtype)
    time = torch.rand(2, generator=draw).to(dtype)
    caption = torch.randint(0, TOKEN, (2, 3), generator=draw)
    prompt = torch.cat([caption, torch.full((2, 1), TOKEN)], dim=1)
    t = time.view(2, 1, 1, 1)
    predicted = model((1 - t) * latents + t * noise, time, prompt)
    return (predicted - noise).square().mean()


def _of_all_parameters(model):
    return list(model.parameters())


def _of_the_token_table(model):
    """The authors' own case: textual inversion, one row of the table."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is model.tokens.weight)
    return [model.tokens.weight]


def _optimizer(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2)


def _only_trained(gradients, row_only):
    """Textual inversion zeroes the gradient of every row but the token's."""
    if not row_only:
        return gradients
    (table,) = gradients
    row = torch.arange(len(table)) == TOKEN
    return [table * row[:, None]]


def _proj(a, b):
    return (a @ b) / (b @ b) * b


def _authors_run(version, choose, dtype):
    """Weights after each step, made by accumulating backward calls."""
    model = _model(dtype)
    parameters = choose(model)
    optimizer = _optimizer(parameters)
    for step in range(STEPS):
        clones = []
        for branch in BRANCHES:
            _loss(model, step, branch).backward()
            kept = _only_trained([p.grad for p in parameters], len(parameters) == 1)
            clones.append(torch.cat([g.clone().flatten() for g in kept]))
        positive, negative, _anchor = clones
        update = positive - _proj(positive, negative)
        if version == "released-4.2":
            update = update + _proj(positive, positive)
        for parameter, part in zip(
            parameters, update.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad.copy_(part.view_as(parameter))
        optimizer.step()
        optimizer.zero_grad()
        yield [p.detach().clone() for p in parameters]


def _our_run(rule, choose, dtype):
    """Weights after each step, made by a gradient of its own per branch and `refine`."""
    model = _model(dtype)
    parameters = choose(model)
    optimizer = _optimizer(parameters)
    for step in range(STEPS):
        branches = []
        for branch in BRANCHES:
            gradients = torch.autograd.grad(_loss(model, step, branch), parameters)
            branches.append(_only_trained(gradients, len(parameters) == 1))
        for parameter, gradient in zip(parameters, refine(rule, *branches), strict=True):
            parameter.grad = gradient
        optimizer.step()
        yield [p.detach().clone() for p in parameters]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("choose", [_of_all_parameters, _of_the_token_table])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
def test_every_step_is_that_of_accumulating_backward_calls(version, choose, dtype, tolerance):
    runs = zip(_authors_run(version, choose, dtype), _our_run(version, choose, dtype), strict=True)
    start = [p.detach().clone() for p in choose(_model(dtype))]
    for theirs, ours in runs:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        moved = max(float((x - y).abs().max()) for x, y in zip(ours, start, strict=True))
        assert moved > 5e-3
        start = ours


@pytest.mark.parametrize("rule", ["nsync", "projection", "contrast", "plain"])
def test_the_published_rules_are_not_what_was_released(rule):
    *_, theirs = _authors_run("released-4.2", _of_all_parameters, torch.float64)
    *_, ours = _our_run(rule, _of_all_parameters, torch.float64)
    assert any(float((x - y).abs().max()) > 1e-3 for x, y in zip(ours, theirs, strict=True))


def test_where_the_released_code_divides_zero_by_zero_nothing_is_projected():
    p = [torch.tensor([1.0, 2.0])]
    n = [-p[0]]
    assert torch.equal(refine("released-4.1", p, n)[0], p[0])
    assert torch.equal(refine("released-4.2", p, n)[0], 2 * p[0])
