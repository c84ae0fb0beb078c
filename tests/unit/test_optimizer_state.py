"""A run goes on after a stop as if there had been none; averages come and go without a trace."""

import json

import numpy as np
import pytest
import torch
from optimizer_runs import (
    EVERY,
    EXACT,
    RATES,
    SIZES,
    Array,
    go,
    made,
    need,
    parameters,
    starts,
)
from safetensors.torch import load, save
from torch import Tensor, nn

from nsync.errors import InputError
from nsync.optimizers import Ema, averaged, load_state, make_optimizer, state_tensors

LONG = 100


def through_bytes(
    tensors: dict[str, Tensor], scalars: dict[str, float | int]
) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    return load(save(tensors)), json.loads(json.dumps(scalars, allow_nan=False))


@pytest.mark.parametrize("stop", [0, 1, 50, 90])  # where Prodigy's estimate starts, grows, rests
@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_equals_an_unbroken_one(name: str, stop: int) -> None:
    need(name)
    begun = starts() | {"embedding": np.zeros(SIZES["embedding"])}  # Prodigy treats zeros apart
    groups = parameters(begun)
    optimizer = made(name, groups)
    go(optimizer, groups, 0, stop, LONG)
    saved = state_tensors(optimizer)
    weights = {group: x.detach().double().numpy().copy() for group, x in groups.items()}
    go(optimizer, groups, stop, LONG, LONG)

    again = parameters(weights)
    resumed = made(name, again)
    loaded = through_bytes(*saved)
    load_state(resumed, *loaded)
    go(resumed, again, stop, LONG, LONG)

    assert all(torch.equal(groups[group], again[group]) for group in SIZES)
    (tensors, scalars), (others, numbers) = state_tensors(optimizer), state_tensors(resumed)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert scalars == numbers
    # What was saved and what was loaded are copies: no later step has changed them.
    again = through_bytes(*saved)
    assert all(torch.equal(again[0][key], value) for key, value in loaded[0].items())
    assert loaded[1] == saved[1]


@pytest.mark.parametrize("name", EVERY)
def test_state_is_plain_and_flatly_named(name: str) -> None:
    need(name)
    groups = parameters(starts())
    optimizer = made(name, groups)
    go(optimizer, groups, 0, 2)
    tensors, scalars = state_tensors(optimizer)
    assert {key.rsplit(".", 1)[0] for key in tensors | scalars} == {
        "optimizer.lora",
        "optimizer.embedding",
    }
    assert all(x.device.type == "cpu" and not x.requires_grad for x in tensors.values())
    assert all(type(x) in (int, float) for x in scalars.values())


def state_of(name: str, sizes: dict[str, int]) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    groups = {group: nn.Parameter(torch.ones(size)) for group, size in sizes.items()}
    optimizer = make_optimizer(name, groups, dict.fromkeys(sizes, 1.0), 0.0)
    go(optimizer, groups, 0, 1)
    return state_tensors(optimizer)


@pytest.mark.parametrize(
    ("name", "sizes", "told"),
    [
        ("adamw", {"lora": 4}, "expected exp_avg, exp_avg_sq, step of adamw for embedding"),
        ("lion", {"lora": 4, "embedding": 2}, "exp_avg_sq, step of adamw.*got exp_avg"),
        ("adamw", {"lora": 5, "embedding": 2}, r"4 weights of lora; got the shape \(5,\)"),
        ("adamw", {"lora": 4, "embedding": 2, "more": 1}, "got optimizer.more.exp_avg"),
    ],
)
def test_the_state_of_another_run_is_refused(name: str, sizes: dict[str, int], told: str) -> None:
    groups = {"lora": nn.Parameter(torch.ones(4)), "embedding": nn.Parameter(torch.ones(2))}
    optimizer = make_optimizer("adamw", groups, RATES, 0.0)
    go(optimizer, groups, 0, 1)
    before = state_tensors(optimizer)
    tensors, scalars = state_of(name, sizes)
    with pytest.raises(InputError, match=f"`optimizer state`.*{told}"):
        load_state(optimizer, tensors, scalars)
    after = state_tensors(optimizer)
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])


def test_a_missing_number_is_refused() -> None:
    tensors, scalars = state_of("prodigy", {"lora": 4})
    del scalars["optimizer.lora.d"]
    groups = {"lora": nn.Parameter(torch.ones(4))}
    optimizer = make_optimizer("prodigy", groups, {"lora": 1.0}, 0.0)
    with pytest.raises(InputError, match="of prodigy for lora"):
        load_state(optimizer, tensors, scalars)


@pytest.mark.parametrize("name", EXACT)
def test_averaged_gives_the_weights_back_to_the_bit(name: str) -> None:
    groups = parameters(starts())
    optimizer = made(name, groups)
    with averaged(optimizer):  # before the first step too
        pass
    go(optimizer, groups, 0, 5)
    before = {group: x.detach().clone() for group, x in groups.items()}

    def stopped() -> None:
        with averaged(optimizer):
            shown = all(torch.equal(before[group], groups[group]) for group in groups)
            assert shown == (name != "schedule-free adamw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert all(torch.equal(before[group], groups[group]) for group in groups)
    go(optimizer, groups, 5, 6)  # it trains again
    assert not any(torch.equal(before[group], groups[group]) for group in groups)


def ema_run(groups: dict[str, nn.Parameter], average: Ema, first: int, end: int) -> None:
    for step in range(first, end):
        with torch.no_grad():
            for parameter in groups.values():
                parameter.copy_(torch.from_numpy(moved(len(parameter), step)))
        average.update()


def moved(size: int, step: int) -> Array:
    return np.random.default_rng(step).standard_normal(size)


def test_the_average_is_its_formula_and_warms_up() -> None:
    groups = parameters(starts())
    average = Ema(groups, 0.5)
    ema_run(groups, average, 0, 12)
    for name, value in starts().items():
        for step in range(12):
            decay = min(0.5, (1 + step) / (10 + step))
            value = decay * value + (1 - decay) * moved(len(value), step)
        assert average.values[name].dtype == torch.float32
        np.testing.assert_allclose(average.values[name].numpy(), value, rtol=1e-5, atol=1e-6)


def test_a_resumed_average_equals_an_unbroken_one() -> None:
    groups = parameters(starts())
    average = Ema(groups, 0.9)
    ema_run(groups, average, 0, 4)
    saved = average.state_tensors()
    ema_run(groups, average, 4, 9)
    resumed = Ema(groups, 0.9)
    resumed.load_state(load(save(saved)))
    ema_run(groups, resumed, 4, 9)
    assert all(torch.equal(average.values[name], resumed.values[name]) for name in groups)


@pytest.mark.parametrize(
    "change", [{"ema.lora": torch.ones(4)}, {"ema.more": torch.ones(1)}, {"ema.updates": None}]
)
def test_the_average_of_another_run_is_refused(change: dict[str, Tensor | None]) -> None:
    average = Ema(parameters(starts()), 0.9)
    changed = average.state_tensors() | change
    with pytest.raises(InputError, match="average of the weights"):
        average.load_state({name: value for name, value in changed.items() if value is not None})
    assert all(np.array_equal(average.values[k], x.astype("f4")) for k, x in starts().items())
