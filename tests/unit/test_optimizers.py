"""Optimizers make the updates of their papers; rates follow their schedule."""

import math
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from optimizer_runs import (
    DECAYS,
    EVERY,
    EXACT,
    RATES,
    SIZES,
    STEPS,
    Array,
    factor,
    go,
    gradient,
    made,
    need,
    parameters,
    starts,
)
from test_rules_device import no_host_sync
from torch import nn

from nsync import optimizers
from nsync.errors import InputError
from nsync.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Ema,
    available,
    averaged,
    make_optimizer,
    schedule_factor,
    set_rates,
)


def adamw(x: Array, rate: float, decay: float) -> Array:
    """arXiv 1711.05101, alg. 2; the decay times the whole learning rate, as torch has it."""
    m = v = np.zeros_like(x)
    for step in range(STEPS):
        g, eta, t = gradient(x, step), rate * factor(step), step + 1
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        corrected = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - eta * corrected - eta * decay * x
    return x


def lion(x: Array, rate: float, decay: float) -> Array:
    """arXiv 2302.06675, alg. 2."""
    m = np.zeros_like(x)
    for step in range(STEPS):
        g = gradient(x, step)
        c = 0.9 * m + 0.1 * g
        x = x - rate * factor(step) * (np.sign(c) + decay * x)
        m = 0.99 * m + 0.01 * g
    return x


def schedule_free(x: Array, rate: float, decay: float) -> tuple[Array, Array]:
    """arXiv 2405.15682, alg. 1: the points y of training and x of evaluation.

    As its authors released it, Adam's correction is made to v instead of the rate, and the
    weights of the average follow the largest rate so far.
    """
    z, v, weights = x, np.zeros_like(x), []
    for step in range(STEPS):
        y = 0.1 * z + 0.9 * x
        g, eta = gradient(y, step), rate * factor(step)
        v = 0.999 * v + 0.001 * g**2
        z = z - eta * g / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8) - eta * decay * y
        weights.append((rate * max(map(factor, range(step + 1)))) ** 2)
        c = weights[-1] / sum(weights)
        x = (1 - c) * x + c * z
    return 0.1 * z + 0.9 * x, x


def prodigy(x: Array, decay: Array, done: int, steps: int) -> tuple[Array, float]:
    """arXiv 2306.06101, its Adam version: the point and the estimate of the distance.

    With Adam's bias correction in the rate, and with no rate in s (`safeguard_warmup`).
    """
    x0, d, beta3 = x, 1e-6, math.sqrt(0.999)
    m = v = s = np.zeros_like(x)
    r = 0.0
    for step in range(done):
        t = step + 1
        g = np.concatenate([gradient(part, step) for part in np.split(x, [SIZES["lora"]])])
        gamma = factor(step, steps) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        m = 0.9 * m + 0.1 * d * g
        v = 0.999 * v + 0.001 * d**2 * g**2
        r = beta3 * r + (1 - beta3) * gamma * d**2 * (g @ (x0 - x))
        s = beta3 * s + (1 - beta3) * d**2 * g
        x = x - gamma * d * (decay * x + m / (np.sqrt(v) + d * 1e-8))
        d = max(d, r / np.abs(s).sum())
    return x, d


def assert_moved(
    groups: dict[str, nn.Parameter], begun: dict[str, Array], wanted: dict[str, Array]
) -> None:
    """The way from the start is the wanted one, element by element, to 4 digits."""
    for name, start in begun.items():
        moved, right = groups[name].detach().numpy() - start, wanted[name] - start
        np.testing.assert_allclose(moved, right, rtol=1e-4, atol=1e-4 * np.abs(right).mean())


@pytest.mark.parametrize(("name", "paper"), [("adamw", adamw), ("lion", lion)])
def test_updates_are_those_of_the_paper(name: str, paper: Callable[..., Array]) -> None:
    groups = parameters(starts())
    go(made(name, groups), groups, 0, STEPS)
    wanted = {group: paper(x, RATES[group], DECAYS[group]) for group, x in starts().items()}
    assert_moved(groups, starts(), wanted)


def test_schedule_free_trains_at_y_and_shows_x() -> None:
    groups = parameters(starts())
    optimizer = made("schedule-free adamw", groups)
    go(optimizer, groups, 0, STEPS)
    both = {name: schedule_free(x, RATES[name], DECAYS[name]) for name, x in starts().items()}
    assert_moved(groups, starts(), {name: y for name, (y, _) in both.items()})
    with averaged(optimizer):
        assert_moved(groups, starts(), {name: x for name, (_, x) in both.items()})


def test_prodigy_finds_the_step_size_of_the_paper() -> None:
    done, steps = 100, 200  # before the rate gets small
    begun = {name: 1e-3 * value for name, value in starts().items()}  # float32 sees steps of 1e-6
    groups = parameters(begun)
    optimizer = made("prodigy", groups)
    go(optimizer, groups, 0, done, steps)
    decay = np.concatenate([np.full(size, DECAYS[name]) for name, size in SIZES.items()])
    x, d = prodigy(np.concatenate(list(begun.values())), decay, done, steps)
    assert d > 1e-3  # it has left its first guess, 1e-6, far behind
    assert [group["d"] for group in optimizer.param_groups] == pytest.approx([d, d], rel=1e-4)
    assert_moved(groups, begun, dict(zip(SIZES, np.split(x, [SIZES["lora"]]), strict=True)))


def test_eight_bits_come_close_to_adamw() -> None:
    need("adamw-8bit")
    groups = parameters(starts())
    optimizer = made("adamw-8bit", groups)
    go(optimizer, groups, 0, STEPS)
    assert optimizer.state[groups["lora"]]["state1"].dtype == torch.uint8
    for name, start in starts().items():
        wanted = adamw(start, RATES[name], DECAYS[name]) - start
        error = np.abs(groups[name].detach().numpy() - start - wanted).mean()
        assert error < 0.05 * np.abs(wanted).mean()


@pytest.mark.parametrize("name", EXACT)
def test_groups_keep_their_order_names_and_rates(name: str) -> None:
    groups = parameters(dict(reversed(starts().items())))
    optimizer = make_optimizer(name, groups, dict.fromkeys(groups, 0.25), 0.125)
    found = optimizer.param_groups
    assert [group["name"] for group in found] == ["embedding", "lora"]
    assert [group["params"][0] is groups[group["name"]] for group in found] == [True, True]
    assert [group["weight_decay"] for group in found] == [0.125, 0.125]
    for _ in range(2):  # always of the base rate, never of the last one
        set_rates(optimizer, 0.5)
        assert [group["lr"] for group in found] == [0.125, 0.125]


def test_prodigy_refuses_rates_that_it_would_mix_up() -> None:
    with pytest.raises(InputError, match=r"0.01 for lora, 0.003 for embedding.*to 1\.0"):
        make_optimizer("prodigy", parameters(starts()), RATES, 0.0)


def test_unknown_optimizers_are_told_from_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"`optimizer`: expected one of adamw, .*got 'sgd'"):
        make_optimizer("sgd", parameters(starts()), RATES, 0.0)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("adamw-8bit", "bitsandbytes", "bitsandbytes"),
        ("prodigy", "prodigyopt", "prodigyopt"),
        ("schedule-free adamw", "schedulefree", "schedulefree"),
        ("lion", "lion_pytorch", "lion-pytorch"),
    ],
)
def test_an_absent_package_is_not_offered_but_named(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, package: str
) -> None:
    def find(asked: str) -> ModuleSpec | None:
        return None if asked == module else ModuleSpec(asked, None)

    monkeypatch.setattr(optimizers, "find_spec", find)
    assert available() == tuple(each for each in EVERY if each != name)
    for loaded in [each for each in sys.modules if each.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"`optimizer`.*{name}.*pip install {package}`"):
        make_optimizer(name, parameters(starts()), dict.fromkeys(SIZES, 1.0), 0.0)


def test_the_required_packages_are_there() -> None:
    assert OPTIMIZERS[0] == "adamw"
    assert set(EXACT) <= set(OPTIMIZERS) <= set(EVERY)


@pytest.mark.parametrize("name", ["adamw", "schedule-free adamw", "lion"])
def test_a_step_does_not_wait_for_the_device(name: str) -> None:
    with no_host_sync():
        groups = {
            group: nn.Parameter(torch.ones(size, device="cuda")) for group, size in SIZES.items()
        }
        optimizer, average = made(name, groups), Ema(groups, 0.9)
        for step in range(2):
            for parameter in groups.values():
                parameter.grad = torch.ones_like(parameter)
            set_rates(optimizer, factor(step))
            optimizer.step()
            average.update()
    assert average.values["lora"].device.type == "cuda"


def test_schedules_are_their_formulas() -> None:
    assert SCHEDULES == ("constant", "linear", "cosine")
    for schedule in SCHEDULES:
        rising = [schedule_factor(schedule, step, 10, 3) for step in range(4)]
        assert rising == [0.25, 0.5, 0.75, 1.0]
    assert [schedule_factor("constant", step, 10, 3) for step in range(3, 10)] == [1.0] * 7
    assert [schedule_factor("linear", step, 8, 4) for step in range(4, 9)] == [
        1,
        0.75,
        0.5,
        0.25,
        0,
    ]
    assert schedule_factor("cosine", 6, 9, 3) == pytest.approx(0.5)
    assert schedule_factor("cosine", 9, 9, 3) == 0
    assert schedule_factor("linear", 0, 1, 0) == schedule_factor("cosine", 0, 1, 0) == 1


def test_the_cosine_is_the_one_of_the_released_runs() -> None:
    """To the bit; it used to be written as one product with the rate."""
    for steps, warmup in [(500, 20), (37, 0), (1000, 7)]:
        for step in range(warmup, steps):
            done = (step - warmup) / max(1, steps - warmup)
            wanted = 1e-4 * 0.5 * (1 + math.cos(math.pi * done))
            assert 1e-4 * schedule_factor("cosine", step, steps, warmup) == wanted
