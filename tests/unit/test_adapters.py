"""Adapters go where they are asked to, start from their own seed and leave no trace."""

import pytest
import torch
from denoisers import SmallDenoiser
from torch import nn

from nsync.adapters import (
    ATTENTION,
    ATTENTION_AND_FEED_FORWARD,
    EVERYTHING,
    LAYER_CHOICES,
    adapters,
    select_layers,
)
from nsync.errors import InputError

CPU = torch.device("cpu")


def anatomy(network: nn.Module) -> list[object]:
    modules = [(n, id(m), sorted(vars(m)), m.training) for n, m in network.named_modules()]
    values = [(n, id(p), p.requires_grad, p.dtype) for n, p in network.named_parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    return [modules, values, hooks]


@pytest.mark.parametrize("choice", LAYER_CHOICES)
def test_nothing_is_left_behind(choice: str) -> None:
    network = SmallDenoiser().network
    network.conv_in.weight.requires_grad_(True)
    before = anatomy(network)
    with adapters(network, choice, 4, 4.0, 0, CPU) as trained:
        assert anatomy(network) != before
        assert trained.parameters
    assert anatomy(network) == before


def test_nothing_is_left_behind_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SmallDenoiser().network
    before = anatomy(network)
    with pytest.raises(RuntimeError, match="inside"), adapters(network, ATTENTION, 4, 4.0, 0, CPU):
        raise RuntimeError("inside")
    assert anatomy(network) == before
    monkeypatch.setattr("nsync.adapters._start", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), adapters(network, ATTENTION, 4, 4.0, 0, CPU):
        pass
    assert anatomy(network) == before


def test_only_adapters_train_and_the_base_keeps_its_dtype() -> None:
    network = SmallDenoiser().network.bfloat16()
    with adapters(network, ATTENTION, 4, 4.0, 0, CPU) as trained:
        training = {id(p) for p in network.parameters() if p.requires_grad}
        assert training == {id(p) for p in trained.parameters.values()}
        assert {p.dtype for p in trained.parameters.values()} == {torch.float32}
        assert network.conv_in.weight.dtype == torch.bfloat16


def test_the_start_changes_nothing_and_comes_from_the_seed_alone() -> None:
    denoiser = SmallDenoiser()
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    args = (noisy, denoiser.encode_prompts(["a cat"]), torch.tensor([0.5]))
    state = torch.get_rng_state()
    starts = []
    for seed in (0, 0, 1):
        torch.rand(3)
        before = denoiser.predict(*args)
        with adapters(denoiser.network, ATTENTION, 4, 4.0, seed, CPU) as trained:
            torch.testing.assert_close(denoiser.predict(*args), before)
            starts.append(trained.state())
    torch.set_rng_state(state)
    first, again, other = starts
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first if k.endswith("lora_A"))
    assert not any(first[k].any() for k in first if k.endswith("lora_B"))
    spread = first["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A"]
    assert spread.abs().max() <= 32**-0.5
    assert spread.std() == pytest.approx(32**-0.5 / 3**0.5, rel=0.2)


def test_the_processes_own_generator_is_left_alone() -> None:
    network = SmallDenoiser().network
    state = torch.get_rng_state()
    with adapters(network, EVERYTHING, 4, 4.0, 0, CPU):
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


def test_a_network_without_such_layers_is_an_input_error() -> None:
    network = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(InputError, match=r"`layers`.*Sequential.*all linear"):
        select_layers(network, ATTENTION)
    with pytest.raises(InputError, match=r"`layers`.*'some'"):
        select_layers(network, "some")


class Linear(nn.Module):
    """Linear without being torch's class, as a host's quantised layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features = self.out_features = 8
        self.weight = nn.Parameter(torch.eye(8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


def test_a_hosts_own_linear_layer_is_trained_too() -> None:
    network = nn.Sequential(Linear())
    with adapters(network, EVERYTHING, 2, 2.0, 0, CPU) as trained:
        output = network(torch.ones(1, 8)).sum()
        found = torch.autograd.grad(output, list(trained.parameters.values()))
        assert found[1].any()
    assert type(network[0]) is Linear


def test_rank_above_a_layers_size() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(2, 6, 1))
    with pytest.raises(
        InputError, match="`rank`: expected at most 2, the size of the layer 1; got 3"
    ):
        adapters(network, EVERYTHING, 3, 2.0, 0, CPU).__enter__()
