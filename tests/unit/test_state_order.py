"""A state goes on in the order of another door's layers."""

import pytest
import torch

from nsync.errors import InputError
from nsync.runs.state_order import in_order, order_of, with_order

SIZES = {"a.lora_A": 2, "a.lora_B": 3, "b.lora_A": 1, "b.lora_B": 4}
NAMES = {"a": "lora_unet_a", "b": "lora_unet_b"}
HERE = order_of(SIZES, NAMES)
THERE = order_of(
    {"second.lora_A": 1, "second.lora_B": 4, "first.lora_A": 2, "first.lora_B": 3},
    {"first": "lora_unet_a", "second": "lora_unet_b"},
)


def state(order):
    """Vectors in which every number says which weight it is of, and where in it."""
    values = [100.0 * (hash(name) % 97) + i for name, size in order for i in range(size)]
    vector = torch.tensor(values)
    tensors = {"weights.lora": vector, "optimizer.lora.exp_avg": -vector, "ema.lora": vector + 0.5}
    return tensors | {"optimizer.lora.step": torch.tensor(7.0)}


def test_every_weight_is_found_again_by_its_name():
    scalars = with_order({"optimizer.lora.k": 3}, {"lora": HERE})
    tensors, left = in_order(state(HERE), scalars, {"lora": THERE})
    assert left == {"optimizer.lora.k": 3}
    assert tensors.keys() == state(THERE).keys()
    for name, value in state(THERE).items():
        assert torch.equal(tensors[name], value), name
    assert not torch.equal(tensors["weights.lora"], state(HERE)["weights.lora"])


def test_the_same_order_changes_nothing():
    scalars = with_order({}, {"lora": HERE})
    tensors, _ = in_order(state(HERE), scalars, {"lora": HERE})
    assert all(torch.equal(tensors[name], value) for name, value in state(HERE).items())


def test_a_state_that_tells_no_order_is_taken_as_it_is():
    tensors, _ = in_order(state(HERE), {}, {"lora": THERE})
    assert torch.equal(tensors["weights.lora"], state(HERE)["weights.lora"])


def test_kinds_have_orders_of_their_own():
    embedding = (("clip_l", 10),)
    scalars = with_order({}, {"lora": HERE, "embedding": embedding})
    given = state(HERE) | {"weights.embedding": torch.arange(10.0)}
    tensors, _ = in_order(given, scalars, {"lora": THERE, "embedding": embedding})
    assert torch.equal(tensors["weights.embedding"], torch.arange(10.0))


def test_other_weights_are_refused():
    scalars = with_order({}, {"lora": HERE})
    other = (*HERE[:-1], ("lora_unet_c.lora_B", 4))
    with pytest.raises(InputError, match="other ones, such as lora_unet_"):
        in_order(state(HERE), scalars, {"lora": other})


def test_numbers_of_blocks_are_refused():
    """8-bit moments are scaled block by block: another order would be other numbers."""
    scalars = with_order({}, {"lora": HERE})
    given = state(HERE) | {"optimizer.lora.absmax1": torch.ones(2)}
    with pytest.raises(InputError, match="absmax1"):
        in_order(given, scalars, {"lora": THERE})
