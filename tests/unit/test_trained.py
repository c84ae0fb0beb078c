"""What is trained stands in its place in the model, and the model is afterwards as it was."""

from dataclasses import replace

import pytest
import torch
from branch_runs import TOKEN, random_adapters
from denoisers import SmallDenoiser
from torch import Tensor

from nsync.errors import InputError
from nsync.layers import ATTENTION, ATTENTION_AND_FEED_FORWARD, EVERYTHING
from nsync.settings import BOTH, EMBEDDING, TrainSettings
from nsync.trained import (
    check_layers,
    chosen_layers,
    first_adapters,
    first_vectors,
    standing_for,
    trained,
)

SETTINGS = TrainSettings(rank=2, alpha=3.0, trains=BOTH, initial_word="old oil painting")
PROMPT = f"a cat by {TOKEN}"


def states(denoiser: SmallDenoiser, text: str = PROMPT) -> Tensor:
    return denoiser.encode_prompts([text])[0]["states"]


def vectors_of(words: str, count: int) -> Tensor:
    settings = replace(SETTINGS, initial_word=words, vectors=count)
    return first_vectors(settings, SmallDenoiser())["words"]


def test_first_vectors_are_those_of_the_initial_word() -> None:
    a, b, c = SmallDenoiser().word_vectors("old oil painting")["words"]
    cases = [
        ("old", 0, [a]),
        ("old", 1, [a]),
        ("old", 3, [a, a, a]),
        ("old oil painting", 0, [a, b, c]),
        ("old oil painting", 3, [a, b, c]),
        ("old oil painting", 5, [a, b, c, a, b]),
        # The mean of each one's share of the tokens; the first get what does not divide.
        ("old oil painting", 2, [(a + b) / 2, c]),
        ("old oil painting", 1, [(a + b + c) / 3]),
    ]
    for words, count, expected in cases:
        torch.testing.assert_close(vectors_of(words, count), torch.stack(expected))


def test_an_initial_word_without_tokens_is_an_input_error() -> None:
    class Mute(SmallDenoiser):
        def word_vectors(self, text: str) -> dict[str, Tensor]:
            return {"one": torch.ones(2, 8), "other": torch.ones(0, 8)}

    with pytest.raises(InputError, match=r"`initial_word`.*got ' '"):
        first_vectors(replace(SETTINGS, initial_word=" "), SmallDenoiser())
    with pytest.raises(InputError, match=r"`initial_word`.*got '~'"):
        first_vectors(replace(SETTINGS, initial_word="~"), Mute())


def test_each_text_encoder_has_as_many_vectors_as_tokens() -> None:
    class Two(SmallDenoiser):
        def word_vectors(self, text: str) -> dict[str, Tensor]:
            return {"short": torch.rand(1, 4), "long": torch.rand(3, 6)}

    shapes = {
        count: {k: tuple(v.shape) for k, v in first_vectors(settings, Two()).items()}
        for count in (0, 2)
        for settings in [replace(SETTINGS, vectors=count)]
    }
    assert shapes[0] == {"short": (1, 4), "long": (3, 6)}
    assert shapes[2] == {"short": (2, 4), "long": (2, 6)}


def test_a_word_stands_for_vectors_for_a_while() -> None:
    denoiser, other = SmallDenoiser(), {"words": torch.zeros(1, 32)}
    mine, before = {"words": torch.ones(2, 32)}, states(denoiser)
    with standing_for(denoiser, TOKEN, mine):
        assert denoiser.words[TOKEN] is mine
        assert not torch.equal(states(denoiser), before)
    assert denoiser.words == {}
    assert torch.equal(states(denoiser), before)
    denoiser.words = {TOKEN: other, "else": other}
    with pytest.raises(RuntimeError, match="inside"), standing_for(denoiser, TOKEN, mine):
        raise RuntimeError("inside")
    assert denoiser.words[TOKEN] is denoiser.words["else"] is other


def test_prompts_follow_the_vector_that_is_trained() -> None:
    denoiser = SmallDenoiser()
    settings = replace(SETTINGS, trains=EMBEDDING, initial_word=TOKEN)
    before, elsewhere = states(denoiser), states(denoiser, "a cat by rembrandt")
    with trained(settings, denoiser, TOKEN) as made, torch.no_grad():
        assert list(made.groups) == ["embedding"]
        assert torch.equal(states(denoiser), before)  # the token's own vector, so far
        made.groups["embedding"].add_(1.0)
        assert not torch.allclose(states(denoiser), before, atol=0.1)
        expected = denoiser.word_vectors(TOKEN)["words"] + 1
        assert torch.equal(denoiser.words[TOKEN]["words"], expected)
        assert torch.equal(states(denoiser, "a cat by rembrandt"), elsewhere)
    assert denoiser.words == {}


def test_a_branch_reads_its_own_copy_and_moves_no_other() -> None:
    denoiser = SmallDenoiser()
    settings = replace(SETTINGS, text_encoders=True)
    start = random_adapters(chosen_layers(settings, denoiser), 2, 3.0)
    with trained(settings, denoiser, TOKEN, start) as made:
        plain = states(denoiser)
        with made.copied(3) as leaves:
            assert [leaf.shape for leaf in leaves] == [(3, len(v)) for v in made.groups.values()]
            with made.branch(1, 3):
                seen = states(denoiser)
            torch.testing.assert_close(seen, plain)
            found = torch.autograd.grad(seen.square().sum(), leaves)
        for gradient in found:
            assert not gradient[[0, 2]].any()
            assert gradient[1].any()
        assert torch.equal(states(denoiser), plain)
        assert made.rows.counts == ()


def test_after_a_failure_nothing_is_left_either() -> None:
    denoiser = SmallDenoiser()
    layers = {name: id(m) for name, m in denoiser.network.named_modules()}
    with (
        pytest.raises(RuntimeError, match="inside"),
        trained(SETTINGS, denoiser, TOKEN) as made,
        made.copied(2),
        made.branch(0, 2),
    ):
        raise RuntimeError("inside")
    assert denoiser.words == {}
    assert {name: id(m) for name, m in denoiser.network.named_modules()} == layers
    assert all(store.copies is None for store in made.stores.values())
    assert made.rows.counts == ()


def test_an_existing_lora_decides_layers_ranks_and_alphas() -> None:
    denoiser, settings = SmallDenoiser(), replace(SETTINGS, text_encoders=True)
    layers = list(chosen_layers(settings, denoiser).items())
    start = random_adapters(dict(layers[:1]), 1, 0.5) | random_adapters(dict(layers[-1:]), 5, 7.0)
    with trained(settings, denoiser, TOKEN, start) as made:
        held = made.state({kind: vector.detach() for kind, vector in made.groups.items()})
        assert list(made.alphas.values()) == [0.5, 7.0]
        assert held["lora"].keys() == {f"{k}.lora_{f}" for k in start for f in "AB"}
        for key, one in start.items():
            assert torch.equal(held["lora"][f"{key}.lora_A"], one.down)
            assert torch.equal(held["lora"][f"{key}.lora_B"], one.up)
        held["lora"].popitem()[1].zero_()  # a copy
        assert made.stores["lora"].vector.detach()[-1] == one.up.flatten()[-1]


def test_text_encoders_are_trained_in_their_blocks_alone() -> None:
    denoiser = SmallDenoiser()
    denoiser.text_encoders["words"].text_projection = torch.nn.Linear(4, 4)
    denoiser.text_encoders["words"].mlp = torch.nn.ModuleDict({"fc1": torch.nn.Linear(4, 4)})
    attention = {f"words:self_attn.{name}_proj" for name in ("q", "k", "v", "out")}
    for choice, expected in {
        ATTENTION: attention,
        ATTENTION_AND_FEED_FORWARD: attention | {"words:mlp.fc1"},
        EVERYTHING: attention | {"words:mlp.fc1"},
    }.items():
        settings = replace(SETTINGS, layers=choice, text_encoders=True)
        found = first_adapters(settings, denoiser)
        assert {key for key in found if ":" in key} == expected
        assert {(len(one.down), one.alpha) for one in found.values()} == {(2, 3.0)}
        without = first_adapters(replace(settings, text_encoders=False), denoiser)
        assert found.keys() - without.keys() == expected


def test_the_rank_of_a_new_lora_is_checked_before_the_work() -> None:
    denoiser, settings = SmallDenoiser(), replace(SETTINGS, rank=33)
    with pytest.raises(InputError, match="`rank`: expected at most 32"):
        check_layers(settings, denoiser, None)
    existing = random_adapters(chosen_layers(settings, denoiser), 40, 1.0)
    check_layers(settings, denoiser, existing)  # its rank is what it is
    check_layers(replace(settings, trains=EMBEDDING), denoiser, None)


def test_a_rule_projects_over_whole_vectors_or_weight_by_weight() -> None:
    with trained(SETTINGS, SmallDenoiser(), TOKEN) as made:
        vectors = list(made.groups.values())
        assert made.parts(vectors, "global") is vectors
        parts = made.parts(vectors, "tensor")
        assert [len(part) for part in parts] == [n for s in made.stores.values() for n in s.sizes]
        assert torch.equal(torch.cat(parts), torch.cat(vectors))
