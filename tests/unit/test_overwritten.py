"""What backward needs, and what the forward pass overwrites of it."""

import contextlib
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from nsync import overwritten


def many_in_the_same_place(x: Tensor) -> Tensor:
    """Each is saved, overwritten and gone: the next one comes to lie where it lay."""
    total = x.new_zeros(())
    for i in range(1, 50):
        here = x.repeat(40, 40) * i
        part = here.square().sum()
        here.zero_()
        total = total + part
        here = part = None
    return total


def a_residual_stream(x: Tensor) -> Tensor:
    """As CLIP's layers of the host: `x += f(norm(x))`."""
    for _ in range(3):
        stream = x * 2
        for _ in range(3):
            stream += torch.nn.functional.layer_norm(stream, stream.shape[1:]).exp()
        x = x + stream / 9
    return x.square().sum()


def views(x: Tensor) -> Tensor:
    """One is saved whole and in parts, in two shapes; then a part of it is overwritten."""
    base = x * 3
    half, turned = base[2:], base.t()
    total = base.exp().sum() + half.square().sum() + (turned @ base).square().sum()
    base[:1].mul_(x[:1])
    half[0] = total.detach()
    return total + base.sin().sum()


def by_lists_and_out(x: Tensor) -> Tensor:
    """Operators that write into a list of tensors, or into a tensor given by name."""
    ones = [x * 2, x * 3]
    total = sum(one.square().sum() for one in ones)
    kept = x * 4
    total = total + kept.square().sum()
    with torch.no_grad():
        torch._foreach_mul_(ones, 0.5)
        torch.add(x.detach(), 1, out=kept.detach())
    return total + ones[0].square().sum()


PROGRAMS = (many_in_the_same_place, a_residual_stream, views, by_lists_and_out)


def start(seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(8, 8, generator=source, dtype=torch.float64).requires_grad_()


def gradient(program: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.autograd.grad(program(x), x)[0]


def expected(program: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Everything is copied when it is saved."""
    with saved_tensors_hooks(torch.clone, lambda value: value):
        return gradient(program, x)


@pytest.mark.parametrize("program", PROGRAMS)
def test_gradients_are_of_the_values_that_were_saved(program: Callable[[Tensor], Tensor]) -> None:
    with overwritten.copied():
        found = gradient(program, start())
    assert torch.equal(found, expected(program, start()))


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_overwritten_is_noticed_before_backward(
    program: Callable[[Tensor], Tensor],
) -> None:
    with (
        pytest.raises(overwritten.OverwrittenError, match=r"\[\d+, \d+\]"),
        overwritten.watched(),
    ):
        total = program(start())
    assert total.requires_grad


def test_what_is_overwritten_later_is_noticed_by_backward() -> None:
    x = start()
    with overwritten.watched():
        base = x * 2
        total = base.square().sum()
    base.zero_()
    with pytest.raises(overwritten.OverwrittenError):
        torch.autograd.grad(total, x)


STEPS = {
    "saved": lambda values, i: values.append(values[i].sin()),
    "saved twice": lambda values, i: values.append(values[i] * values[i - 1]),
    "part": lambda values, i: values.append(values[i][::2].repeat(2, 1)),
    "added to": lambda values, i: values[i].add_(values[i - 1].detach()),
    "one row": lambda values, i: values[i][0].copy_(values[i - 1][1]),
    "gone": lambda values, i: values.pop(i) if len(values) > 2 else None,
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99)), max_size=40))
def test_any_order_of_saving_overwriting_and_letting_go(steps: list[tuple[str, int]]) -> None:
    def program(x: Tensor) -> Tensor:
        values = [x * 2, x * 3]
        for step, place in steps:
            STEPS[step](values, place % len(values))
        return sum(value.tanh().sum() for value in values)

    with overwritten.copied():
        found = gradient(program, start())
    assert torch.equal(found, expected(program, start()))


def test_a_tensor_that_is_saved_often_is_copied_once_and_no_other_is() -> None:
    saved = []
    with overwritten.copied():
        x = start()
        changed, kept = x * 2, x * 3
        total = sum(one.square().sum() + one.exp().sum() for one in (changed, kept) * 2)
        changed.zero_()
        total.register_hook(lambda _: saved.extend(_places(total)))
        torch.autograd.grad(total, x)
    assert kept.data_ptr() in saved
    assert changed.data_ptr() not in saved
    assert len(set(saved)) == 2 + 4  # of exp autograd saves the outcomes


def _places(total: Tensor) -> list[int]:
    """Where what the graph has saved lies, scalars left out."""
    found, left = [], [total.grad_fn]
    while left:
        node = left.pop()
        left += [other for other, _ in node.next_functions if other is not None]
        for name in ("_saved_self", "_saved_result"):
            value = getattr(node, name, None)
            found += [value.data_ptr()] if isinstance(value, Tensor) and value.dim() else []
    return found


@pytest.mark.parametrize("saving", [overwritten.watched, overwritten.copied])
def test_nothing_stays_when_a_pass_is_over(saving: Callable) -> None:
    def program(x: Tensor) -> Tensor:
        stream = x * 2
        nodes.append(weakref.ref(stream))
        stream += stream.square()  # its history now holds what has saved it
        return stream.sum()

    nodes: list[weakref.ref] = []
    gc.collect()
    gc.disable()
    try:
        with saving(), contextlib.suppress(overwritten.OverwrittenError):
            gradient(program, start())
        assert nodes[0]() is None
    finally:
        gc.enable()
