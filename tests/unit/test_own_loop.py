"""A training loop of the user's own: the README's difference, run, and the branch context."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from small_pipelines import small_sd

from nsync.branches import branch
from nsync.errors import InputError
from nsync.rules import refine

README = Path(__file__).parents[2] / "README.md"


def loops() -> tuple[str, str]:
    """The README's loop before and after the difference."""
    [diff] = re.findall(r"```diff\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = diff.splitlines()
    before, after = (
        "\n".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +")
    )
    return before, after


class Lesson:
    """A small diffusers UNet with a LoRA by PEFT, and batches of noise to predict."""

    def __init__(self) -> None:
        unet = small_sd().unet.double().requires_grad_(False)
        torch.manual_seed(0)
        unet.add_adapter(
            LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
        )
        self.weights = [weight for weight in unet.parameters() if weight.requires_grad]
        for weight in self.weights:
            weight.data = torch.randn_like(weight, dtype=torch.float64) / 10
        self._unet = unet
        self.batches = [
            tuple((torch.randn(2, 4, 8, 8).double(), torch.randn(2, 4, 8, 8).double())
                  for _ in range(2))
            for _ in range(3)
        ]  # fmt: skip
        width = unet.config.cross_attention_dim
        self._states = torch.randn(2, 5, width).double()
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-2)

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The mean squared error of the predicted noise."""
        latents, noise = batch
        predicted = self._unet(latents + noise, torch.tensor([300, 700]), self._states).sample
        return (predicted - noise).square().mean()

    def run(self, loop: str) -> list[torch.Tensor]:
        """The weights after a loop over the batches."""
        names = {
            "batches": self.batches, "loss": self.loss, "weights": self.weights,
            "optimizer": self.optimizer, "branch": branch, "refine": refine,
        }  # fmt: skip
        exec(compile(loop, "README.md", "exec"), names)  # noqa: S102
        return [weight.detach().clone() for weight in self.weights]


def by_hand(lesson: Lesson) -> list[torch.Tensor]:
    """`overlap` written out: what points along the negatives' gradient is taken away."""
    for positives, negatives in lesson.batches:
        p, n = (
            torch.cat([g.flatten() for g in torch.autograd.grad(lesson.loss(part), lesson.weights)])
            for part in (positives, negatives)
        )
        update = p - max(0.0, float(p @ n / (n @ n))) * n
        sizes = [weight.numel() for weight in lesson.weights]
        for weight, part in zip(lesson.weights, update.split(sizes), strict=True):
            weight.grad = part.view_as(weight)
        lesson.optimizer.step()
    return [weight.detach().clone() for weight in lesson.weights]


def test_the_readmes_difference_is_the_rule() -> None:
    before, after = loops()
    assert len(after.splitlines()) - len(before.splitlines()) == 5 - 1
    found, wanted = Lesson().run(after), by_hand(Lesson())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_plain_loop_is_another() -> None:
    before, after = loops()
    plain, ours = Lesson().run(before), Lesson().run(after)
    assert any(not torch.allclose(one, other) for one, other in zip(plain, ours, strict=True))


def fail(weight: torch.Tensor) -> None:
    """A pass whose gradient has arrived when it goes wrong."""
    weight.sum().backward()
    raise ZeroDivisionError


def test_a_branch_leaves_nothing_behind_even_where_it_fails() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    with branch([used, unused]) as found:
        (3 * used).sum().backward()
    assert torch.equal(found[0], torch.full((2,), 3.0))
    assert torch.equal(found[1], torch.zeros(3))
    assert used.grad is None
    with pytest.raises(ZeroDivisionError), branch([used]):
        fail(used)
    assert used.grad is None


def test_a_gradient_that_is_there_is_told() -> None:
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    with pytest.raises(InputError, match="zero_grad"), branch([weight]):
        pass
