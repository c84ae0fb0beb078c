"""Adapters go where they are asked to, start from their own seed and leave no trace."""

import copy

import pytest
import torch
from branch_runs import Added, random_adapters
from denoisers import SmallDenoiser
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nsync.adapters import adapters, fresh, layer_key, split_key
from nsync.errors import InputError
from nsync.layers import (
    ATTENTION,
    ATTENTION_AND_FEED_FORWARD,
    EVERYTHING,
    LAYER_CHOICES,
    check_rank,
    select_layers,
)
from nsync.lora_file import LowRank
from nsync.trained import networks

CPU = torch.device("cpu")


def anatomy(network: nn.Module) -> list[object]:
    modules = [(n, id(m), sorted(vars(m)), m.training) for n, m in network.named_modules()]
    values = [(n, id(p), p.requires_grad, p.dtype) for n, p in network.named_parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    return [modules, values, hooks]


def beginning(network: nn.Module, choice: str = ATTENTION, seed: int = 0) -> dict[str, LowRank]:
    return fresh(select_layers(network, choice), 4, 4.0, seed)


def into(network: nn.Module, start: dict[str, LowRank]):
    return adapters({"network": network}, start, CPU)


@pytest.mark.parametrize("choice", LAYER_CHOICES)
def test_nothing_is_left_behind(choice: str) -> None:
    denoiser = SmallDenoiser()
    denoiser.network.conv_in.weight.requires_grad_(True)
    both = networks(denoiser)
    start = beginning(both["network"], choice)
    start |= {layer_key("words", k): v for k, v in beginning(both["words"]).items()}
    before = {name: anatomy(network) for name, network in both.items()}
    with adapters(both, start, CPU) as (store, _):
        assert not any(anatomy(network) == before[name] for name, network in both.items())
        assert len(store.shapes) == 2 * len(start)
    assert {name: anatomy(network) for name, network in both.items()} == before


def test_a_network_without_a_layer_among_them_is_not_touched() -> None:
    both = networks(SmallDenoiser())
    both["words"].requires_grad_(True)
    before = anatomy(both["words"])
    with adapters(both, beginning(both["network"]), CPU):
        assert anatomy(both["words"]) == before
    assert anatomy(both["words"]) == before


def test_nothing_is_left_behind_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SmallDenoiser().network
    network.conv_in.weight.requires_grad_(True)
    before, start = anatomy(network), beginning(network)
    with pytest.raises(RuntimeError, match="inside"), into(network, start):
        raise RuntimeError("inside")
    assert anatomy(network) == before
    with (
        pytest.raises(AttributeError),
        into(network, start | {"no.such": next(iter(start.values()))}),
    ):
        pass
    assert anatomy(network) == before
    monkeypatch.setattr("nsync.adapters._fill", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), into(network, start):
        pass
    assert anatomy(network) == before


def test_only_the_flat_vector_trains_and_the_base_keeps_its_dtype() -> None:
    network = SmallDenoiser().network.bfloat16()
    network.conv_in.weight.requires_grad_(True)
    dtypes = {name: p.dtype for name, p in network.named_parameters()}
    start = beginning(network)
    with into(network, start) as (store, _):
        assert not any(p.requires_grad for p in network.parameters())
        assert store.vector.requires_grad
        assert store.vector.dtype == torch.float32
        assert store.vector.numel() == sum(s.down.numel() + s.up.numel() for s in start.values())
    assert {name: p.dtype for name, p in network.named_parameters()} == dtypes
    assert set(dtypes.values()) == {torch.bfloat16}


def test_layers_read_the_vector_as_it_is_now() -> None:
    network = nn.Sequential(nn.Linear(3, 5))
    start = random_adapters({"0": network[0]}, 2, 1.0)
    with torch.no_grad(), into(network, start) as (store, _):
        x = torch.ones(1, 3)
        before = network(x)
        store.vector.mul_(2.0)
        found, base = network(x), nn.functional.linear(x, network[0].weight, network[0].bias)
        torch.testing.assert_close(found - base, 4 * (before - base))
        copies = store.named(store.vector)
        store.vector.zero_()
        assert copies["0.lora_A"].any()


def test_the_start_changes_nothing_and_comes_from_the_seed_alone() -> None:
    denoiser = SmallDenoiser()
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    args = (noisy, denoiser.encode_prompts(["a cat"]), torch.tensor([0.5]))
    starts = []
    for seed in (0, 0, 1):
        torch.rand(3)
        before = denoiser.predict(*args)
        with into(denoiser.network, beginning(denoiser.network, seed=seed)) as (store, _):
            torch.testing.assert_close(denoiser.predict(*args), before)
            starts.append(store.named(store.vector.detach()))
    first, again, other = starts
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first if k.endswith("lora_A"))
    assert not any(first[k].any() for k in first if k.endswith("lora_B"))
    spread = first["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A"]
    assert spread.abs().max() <= 32**-0.5
    assert spread.std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.2)


def test_a_layer_starts_alike_whatever_else_is_chosen() -> None:
    network = SmallDenoiser().network
    few, many = beginning(network), beginning(network, EVERYTHING)
    assert few.keys() < many.keys()
    assert all(torch.equal(one.down, many[key].down) for key, one in few.items())
    assert len({float(one.down.flatten()[0]) for one in many.values()}) == len(many)


def test_the_processes_own_generator_is_left_alone() -> None:
    network = SmallDenoiser().network
    state = torch.get_rng_state()
    with into(network, beginning(network, EVERYTHING)):
        pass
    assert torch.equal(torch.get_rng_state(), state)


PATHS = {
    "input_blocks.0.0": EVERYTHING + "!",
    "input_blocks.1.0.in_layers.2": EVERYTHING,
    "input_blocks.1.1.proj_in": EVERYTHING,
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": ATTENTION,
    "input_blocks.1.1.transformer_blocks.0.attn2.to_out.0": ATTENTION,
    "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj": ATTENTION_AND_FEED_FORWARD,
    "out.2": EVERYTHING + "!",
    "down_blocks.0.attentions.0.proj_in": EVERYTHING,
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2": ATTENTION_AND_FEED_FORWARD,
    "joint_blocks.0.x_block.attn.qkv": ATTENTION,
    "joint_blocks.0.context_block.attn.proj": ATTENTION,
    "joint_blocks.0.x_block.mlp.fc1": ATTENTION_AND_FEED_FORWARD,
    "joint_blocks.0.x_block.adaLN_modulation.1": EVERYTHING,
    "final_layer.linear": EVERYTHING + "!",
    "double_blocks.0.img_attn.qkv": ATTENTION,
    "double_blocks.0.txt_attn.proj": ATTENTION,
    "double_blocks.0.img_mlp.0": ATTENTION_AND_FEED_FORWARD,
    "single_blocks.0.linear1": ATTENTION,
    "single_blocks.0.linear2": ATTENTION,
    "single_blocks.0.modulation.lin": EVERYTHING,
    "layers.0.attention.qkv": ATTENTION,
    "layers.0.feed_forward.w1": ATTENTION_AND_FEED_FORWARD,
    "blocks.0.self_attn.q": ATTENTION,
    "blocks.0.ffn.0": ATTENTION_AND_FEED_FORWARD,
    "transformer_blocks.0.attn.add_q_proj": ATTENTION,
    "transformer_blocks.0.ff_context.net.2": ATTENTION_AND_FEED_FORWARD,
    "text_model.encoder.layers.0.self_attn.q_proj": ATTENTION,
    "text_model.encoder.layers.0.self_attn.out_proj": ATTENTION,
    "text_model.encoder.layers.0.mlp.fc1": ATTENTION_AND_FEED_FORWARD,
    "text_projection": EVERYTHING,
}


def test_choices_on_the_names_of_many_architectures() -> None:
    network = nn.Module()
    for path in PATHS:
        place = network
        *parents, last = path.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, nn.Module())
            place = getattr(place, parent)
        place.add_module(last, nn.Linear(8, 8))
    for index, choice in enumerate(LAYER_CHOICES):
        expected = {path for path, least in PATHS.items() if least in LAYER_CHOICES[: index + 1]}
        assert set(select_layers(network, choice)) == expected


def test_keys_of_text_encoders_have_their_name() -> None:
    pairs = {"a.b.to_q": ("network", "a.b.to_q"), "clip_l:a.fc1": ("clip_l", "a.fc1")}
    for key, (name, path) in pairs.items():
        assert layer_key(name, path) == key
        assert split_key(key) == (name, path)


def test_a_network_without_such_layers_is_an_input_error() -> None:
    network = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"`layers`.*Sequential.*all linear"):
        select_layers(network, ATTENTION)
    with pytest.raises(InputError, match=r"`layers`.*'some'.*such as 0"):
        select_layers(network, "some")
    with pytest.raises(InputError, match=r"or a regular expression of whole layer names; got '\('"):
        select_layers(network, "(")


@pytest.mark.parametrize(
    "pattern",
    [r".*attn1\.to_[qkv]", r"up_blocks\.\d+\..*to_out\.0", r".*\.conv1", "conv_in|.*proj_out"],
)
def test_an_expression_names_the_layers_that_peft_names(pattern: str) -> None:
    network = SmallDenoiser().network
    chosen = select_layers(network, pattern)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=pattern), network)
    theirs = {name for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}
    assert set(chosen) == theirs


class Linear(nn.Module):
    """Linear without being torch's class, as a host's quantised layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features = self.out_features = 8
        self.weight = nn.Parameter(torch.eye(8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def test_a_hosts_own_linear_layer_is_trained_too() -> None:
    network = nn.Sequential(Linear())
    with into(network, fresh({"0": network[0]}, 2, 2.0, 0)) as (store, rows):
        with store.copied(1) as leaf, rows.of([1]):
            (found,) = torch.autograd.grad(network(torch.ones(1, 8)).sum(), leaf)
        down, up = found[0].split(store.sizes)
        assert up.any()
        assert not down.any()  # behind an `up` of zero
    assert type(network[0]) is Linear


def test_a_network_with_an_adapter_of_somebody_else_is_refused_and_keeps_it() -> None:
    network = nn.Sequential(nn.Linear(8, 8))
    start = fresh({"0": network[0]}, 2, 2.0, 0)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), network, "mine")
    network.peft_config = {"mine": "theirs"}  # as diffusers keeps it
    before, config = anatomy(network), network.peft_config
    refused = pytest.raises(InputError, match=r"without adapters of PEFT.*unload_lora_weights")
    with refused, into(network, start):
        pass
    assert anatomy(network) == before
    assert network.peft_config is config
    assert network[0].active_adapters == ["mine"]


def test_rank_above_a_layers_size() -> None:
    layers = {"first": nn.Linear(8, 8), "second": nn.Conv2d(2, 6, 1)}
    check_rank(layers, 2)
    with pytest.raises(
        InputError, match="`rank`: expected at most 2, the size of the layer second; got 3"
    ):
        check_rank(layers, 3)


def test_every_layer_has_the_rank_and_alpha_of_its_start() -> None:
    """An existing LoRA may have another rank and alpha in every layer."""
    both = {name: network.double() for name, network in networks(SmallDenoiser()).items()}
    layers = select_layers(both["network"], EVERYTHING)
    layers |= {layer_key("words", k): v for k, v in select_layers(both["words"], ATTENTION).items()}
    start, changed = {}, {}
    for place, (key, layer) in enumerate(layers.items()):
        layer.weight.zero_()
        layer.bias = None  # what is left is what the adapter adds
        start |= random_adapters({key: layer}, 1 + place % 5, 0.5 + place, seed=place)
        changed[key] = copy.deepcopy(layer)
        parametrize.register_parametrization(changed[key], "weight", Added(start[key]))
    assert any(isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) for layer in layers.values())
    with torch.no_grad(), adapters(both, start, CPU):
        for key, plain in changed.items():
            name, path = split_key(key)
            inputs = plain.weight.shape[1]
            shape = (2, 3, inputs) if isinstance(plain, nn.Linear) else (2, inputs, 6, 6)
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
            found, expected = both[name].get_submodule(path)(x), plain(x)
            assert (found - expected).norm() <= 1e-6 * expected.norm()
