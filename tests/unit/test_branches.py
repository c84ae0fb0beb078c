"""All branches in one pass have the gradients that each would have by itself.

The bound of 1e-5 is on every single tensor: a branch's gradient of one factor of one layer, against
float64. In plain float32 the UNet's own rounding takes up to half of it; with the base in float64
(`exact`) about a third is left, by the adapters' float32.
"""

import copy
from dataclasses import replace
from statistics import median

import pytest
import torch
from branch_runs import (
    SMALL,
    TALL,
    TOKEN,
    Found,
    LittleDenoiser,
    assert_near,
    batches_of,
    chosen,
    errors,
    exact,
    expected_of,
    found_by,
    passes_of,
    random_adapters,
)
from denoisers import SmallDenoiser
from hypothesis import given
from hypothesis import settings as run_as
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from nsync.layers import EVERYTHING, LAYER_CHOICES
from nsync.lora_file import LowRank
from nsync.settings import BOTH, EMBEDDING, FUSED, SEQUENTIAL, TrainSettings
from nsync.trained import first_vectors

FORMS = (FUSED, SEQUENTIAL)
SETTINGS = TrainSettings(rank=3, alpha=2.0, batch=4, branches=FUSED)
BOUND = 1e-5
SAME = 2e-6  # the same sums in another order, the base in float64


def assert_as_expected(settings, denoiser, batches, start, bound=BOUND) -> Found:
    vectors = first_vectors(settings, denoiser) if settings.trains_embedding else None
    expected = expected_of(settings, denoiser, batches, start, vectors)
    found = found_by(settings, denoiser, batches, start)
    assert_near(found, expected, bound)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", LAYER_CHOICES)
def test_every_choice_of_layers_in_float32(choice: str, form: str) -> None:
    settings, denoiser = replace(SETTINGS, layers=choice, branches=form), SmallDenoiser()
    start = chosen(settings, denoiser, seed=1)
    assert_as_expected(settings, denoiser, batches_of((2, 2, 2), [SMALL]), start)


TRAINED = {
    "LoRA": {},
    "LoRA in text encoders too": {"text_encoders": True},
    "embedding": {"trains": EMBEDDING, "vectors": 2},
    "embedding and LoRA": {"trains": BOTH},
    "all of it": {"trains": BOTH, "text_encoders": True, "layers": EVERYTHING},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trains", TRAINED)
def test_whatever_is_trained_with_mixed_sizes_and_unequal_rows(trains: str, form: str) -> None:
    settings = replace(SETTINGS, branches=form, **TRAINED[trains])
    denoiser = exact(SmallDenoiser())
    batches = batches_of((4, 3, 1), [SMALL, TALL])
    found = assert_as_expected(settings, denoiser, batches, chosen(settings, denoiser))
    kinds = {name.partition(":")[0] for name in found.gradients["positive"]}
    assert ("words" in kinds) == settings.trains_text
    assert (len(kinds) > 1) == settings.trains_lora


class OneLayer(nn.Module):
    """One layer, given the pictures in the form that such layers get them in."""

    def __init__(self, kind: str, layer: nn.Module) -> None:
        super().__init__()
        self.kind, self.layer = kind, layer

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "convolution":
            return self.layer(x)
        if self.kind == "of a picture":
            return self.layer(x.mean((2, 3)))
        if self.kind == "of tokens":
            return self.layer(x.flatten(2).transpose(1, 2))
        if self.kind == "of rows":  # as windows and frames are: more rows than pictures
            rows = x.permute(0, 2, 3, 1).flatten(0, 1)
            return self.layer(rows).unflatten(0, (len(x), -1))
        return self.layer(x.permute(0, 2, 3, 1))


LINEAR = ("of a picture", "of tokens", "of rows", "of tokens in a plane")


@st.composite
def networks_of_one_layer(draw: st.DrawFn) -> OneLayer:
    inputs, outputs = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    kind = draw(st.sampled_from((*LINEAR, "convolution", "convolution")))
    if kind != "convolution":
        return OneLayer(kind, nn.Linear(inputs, outputs, bias=draw(st.booleans())))
    size = draw(st.sampled_from((1, 3)))
    layer = nn.Conv2d(
        inputs,
        outputs,
        size,
        stride=draw(st.sampled_from((1, 2, (2, 1)))),
        padding=draw(st.sampled_from((0, 1, (2, 1)))) if size == 3 else 0,
        dilation=draw(st.sampled_from((1, 2))),
        padding_mode=draw(st.sampled_from(("zeros", "circular"))),
    )
    return OneLayer(kind, layer)


@run_as(max_examples=150, deadline=None, derandomize=True)
@given(
    network=networks_of_one_layer(),
    rank=st.integers(1, 8),
    alpha=st.sampled_from((0.5, 1.0, 3.0, 16.0)),
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 1000),
)
def test_any_layer_rank_and_number_of_rows(network, rank, alpha, rows, form, seed) -> None:
    source = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data = torch.rand(value.shape, generator=source)
    denoiser = LittleDenoiser(network)
    inputs = network.layer.weight.shape[1]
    one = random_adapters({"layer": network.layer}, rank, alpha, seed)["layer"]
    start = {"layer": LowRank(one.down.abs(), one.up.abs(), alpha)}
    settings = replace(SETTINGS, branches=form)
    # Nothing cancels here, so that a few units in float32's last place are all there may be.
    assert_as_expected(settings, denoiser, batches_of(rows, [(inputs, 6, 7)]), start, 1e-6)


def test_pefts_own_layers_find_the_same() -> None:
    """Unmodified, in float32, one branch after the other, by `backward`."""
    settings, denoiser = replace(SETTINGS, layers=EVERYTHING), SmallDenoiser()
    batches, start = batches_of((2, 2, 2)), chosen(settings, denoiser, seed=1)
    found = found_by(settings, denoiser, batches, start)
    network = denoiser.network
    config = LoraConfig(r=3, lora_alpha=2.0, target_modules=list(start))
    inject_adapter_in_model(config, network)
    factors = {}
    for key, one in start.items():
        layer = network.get_submodule(key)
        factors[f"{key}.lora_A"] = layer.lora_A["default"].weight
        factors[f"{key}.lora_B"] = layer.lora_B["default"].weight
        layer.lora_A["default"].weight.data = one.down.clone()
        layer.lora_B["default"].weight.data = one.up.clone()
    losses, gradients = {}, {}
    for name, batch in batches.items():
        network.zero_grad()
        conditioning = denoiser.encode_prompts(batch.prompts)
        latents, noise = torch.stack(batch.latents), torch.stack(batch.noise)
        each = denoiser.loss(latents, conditioning, noise, batch.times)
        each.mean().backward()
        losses[name] = each.detach()
        gradients[name] = {key: factor.grad.clone() for key, factor in factors.items()}
    # Two float32 results, each with the error that the first test allows one.
    assert_near(found, Found(losses, gradients), 2 * BOUND)


@pytest.mark.parametrize("form", FORMS)
def test_activations_computed_again_change_nothing(form: str) -> None:
    settings = replace(SETTINGS, branches=form, trains=BOTH, text_encoders=True)
    denoiser, calls = exact(SmallDenoiser()), []
    denoiser.network.up_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    start, batches = chosen(settings, denoiser), batches_of((2, 2, 1), [SMALL, TALL])
    kept = assert_as_expected(settings, denoiser, batches, start)
    assert not denoiser.network.is_gradient_checkpointing
    calls.clear()
    found_by(settings, denoiser, batches, start)
    once = len(calls)
    again = assert_as_expected(replace(settings, checkpointing=True), denoiser, batches, start)
    assert_near(again, kept, SAME)
    calls.clear()
    found_by(replace(settings, checkpointing=True), denoiser, batches, start)
    assert len(calls) == 2 * once
    assert not denoiser.network.is_gradient_checkpointing


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bf16_is_near_and_alike_in_both_forms(checkpointing: bool) -> None:
    """bf16 has 8 bits; a gradient that has come through a dozen layers is good to some percent."""
    settings = replace(SETTINGS, trains=BOTH, text_encoders=True, checkpointing=checkpointing)
    denoiser, batches = SmallDenoiser(), batches_of((2, 2, 2))
    start = chosen(settings, denoiser)
    precise = found_by(settings, denoiser, batches, start)
    fused, sequential = (
        found_by(replace(settings, precision="bf16", branches=form), denoiser, batches, start)
        for form in FORMS
    )
    for one, other in ((fused, sequential), (fused, precise), (sequential, precise)):
        assert_near(one, other, 0.25)
        assert median(errors(one, other).values()) < 0.05
    assert median(errors(fused, precise).values()) > 0.005  # it is bf16 indeed


@pytest.mark.parametrize("form", FORMS)
def test_accumulated_passes_are_one_large_batch(form: str) -> None:
    settings = replace(SETTINGS, branches=form, batch=2, accumulate=3)
    denoiser, sizes = exact(SmallDenoiser()), []
    denoiser.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    start, batches = chosen(settings, denoiser), batches_of((6, 6, 6))
    parts = assert_as_expected(settings, denoiser, batches, start)
    # The reference came first, and shares the hook: picture by picture.
    assert sizes == [1] * 18 + {FUSED: [6] * 3, SEQUENTIAL: [2] * 9}[form]
    whole = found_by(replace(settings, batch=6, accumulate=1), denoiser, batches, start)
    assert_near(parts, whole, SAME)


@pytest.mark.parametrize("form", FORMS)
def test_min_snr_weighs_every_loss(form: str) -> None:
    settings = replace(SETTINGS, branches=form, min_snr=2.0)
    denoiser = exact(SmallDenoiser())
    start, batches = chosen(settings, denoiser), batches_of((4, 3, 2), [SMALL, TALL])
    weighted = assert_as_expected(settings, denoiser, batches, start)
    plain = found_by(replace(settings, min_snr=0.0), denoiser, batches, start)
    assert min(v for k, v in errors(weighted, plain).items() if "loss" not in k) > 0.05
    # The losses that are told are not weighted.
    assert all(torch.equal(weighted.losses[name], plain.losses[name]) for name in batches)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trains", [EMBEDDING, BOTH])
def test_a_branch_without_the_word_says_nothing_of_it(form: str, trains: str) -> None:
    """Caption dropout may take all prompts of a step, or those of one branch."""
    settings = replace(SETTINGS, branches=form, trains=trains)
    denoiser, batches = exact(SmallDenoiser()), batches_of((2, 2, 2))
    start = chosen(settings, denoiser)
    batches["positive"] = replace(batches["positive"], prompts=("", ""))
    some = found_by(settings, denoiser, batches, start)
    assert not some.gradients["positive"]["words"].any()
    assert some.gradients["negative"]["words"].any()
    batches = {name: replace(batch, prompts=("", "")) for name, batch in batches.items()}
    none = found_by(settings, denoiser, batches, start)
    for name in batches:
        assert not none.gradients[name]["words"].any()
        others = [value for key, value in none.gradients[name].items() if key != "words"]
        assert all(value.any() for value in others)
        assert (len(others) > 0) == (trains == BOTH)


@pytest.mark.parametrize("trains", [BOTH, EMBEDDING])
def test_nothing_is_left_in_grad(trains: str) -> None:
    """Nor in a base whose weights ask for it, and which no adapter has switched off."""
    settings, denoiser = replace(SETTINGS, trains=trains), SmallDenoiser()
    texts = [f"a cat like {TOKEN}"]
    batches = {k: replace(b, prompts=tuple(texts)) for k, b in batches_of((1, 1, 1)).items()}
    base = [*denoiser.network.parameters(), *denoiser.text_encoders["words"].parameters()]
    for value in base:
        value.requires_grad_()
    with passes_of(settings, denoiser, chosen(settings, denoiser), texts) as (find, passes):
        find(batches)
        assert all(value.grad is None for value in [*base, *passes._trained.groups.values()])
        assert all(store.copies is None for store in passes._trained.stores.values())


def test_branches_and_passes_leave_the_process_as_it_was() -> None:
    denoiser, state = SmallDenoiser(), torch.get_rng_state()
    before = copy.deepcopy(denoiser.network.state_dict())
    found_by(SETTINGS, denoiser, batches_of((2, 2)), chosen(SETTINGS, denoiser))
    assert torch.equal(torch.get_rng_state(), state)
    after = denoiser.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before | after)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_network_is_one_graph_with_the_same_numbers() -> None:
    """A break of the graph in every adapter would cost more than compiling gains."""
    layer = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1))
    denoiser, batches = LittleDenoiser(OneLayer("convolution", layer)), batches_of((2, 2, 1))
    start = random_adapters({"layer.0": layer[0], "layer.2": layer[2]}, 3, 2.0)
    expected = found_by(SETTINGS, denoiser, batches, start)
    texts = [text for batch in batches.values() for text in batch.prompts]
    with passes_of(SETTINGS, denoiser, start, texts) as (find, _):
        denoiser.network.compile(backend="eager", fullgraph=True)
        found = find(batches)
    torch.compiler.reset()
    assert_near(found, expected, 1e-6)
