"""Draws depend on (seed, step, branch, item) alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from denoisers import SmallDenoiser, small_set

from nsync.batches import EncodedSet, denial, draw_batches, encode_set
from nsync.branches import Batch, BranchPasses
from nsync.settings import TrainSettings

SETTINGS = TrainSettings(batch=2)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedSet:
    style_set = small_set(tmp_path_factory.mktemp("set"), 5)
    return encode_set(SETTINGS, SmallDenoiser(), style_set)


def test_an_epoch_shows_every_positive_once(encoded: EncodedSet) -> None:
    names = [
        n for step in range(5) for n in draw_batches(encoded, SETTINGS, step)["positive"].names
    ]
    assert sorted(names[:5]) == sorted(names[5:]) == sorted(encoded.names)
    assert names[:5] != names[5:]


def test_a_step_can_be_drawn_without_the_ones_before(encoded: EncodedSet) -> None:
    first = draw_batches(encoded, SETTINGS, 7)
    draw_batches(encoded, SETTINGS, 3)
    torch.randn(5)
    again = draw_batches(encoded, SETTINGS, 7)
    for name, batch in first.items():
        assert batch.names == again[name].names
        assert torch.equal(batch.times, again[name].times)
        assert all(map(torch.equal, batch.noise, again[name].noise))


def test_noise_belongs_to_the_item_not_to_its_place(encoded: EncodedSet) -> None:
    wide = draw_batches(encoded, replace(SETTINGS, batch=5), 0)["positive"]
    narrow = draw_batches(encoded, replace(SETTINGS, batch=3), 0)["positive"]
    for place, name in enumerate(narrow.names):
        other = wide.names.index(name)
        assert torch.equal(narrow.noise[place], wide.noise[other])
        assert narrow.times[place] == wide.times[other]


def test_branches_steps_and_repeats_differ(encoded: EncodedSet) -> None:
    settings = replace(SETTINGS, batch=10)
    batches = draw_batches(encoded, settings, 0) | {
        "later": draw_batches(encoded, settings, 1)["positive"]
    }
    times = torch.cat([batch.times for batch in batches.values()])
    assert len(times.unique()) == 40
    assert 0 <= times.min() < 0.2 < 0.8 < times.max() <= 1


def test_shared_noise_is_the_positives_own(encoded: EncodedSet) -> None:
    apart = draw_batches(encoded, SETTINGS, 0)
    shared = draw_batches(encoded, replace(SETTINGS, shared_noise=True), 0)
    for batches, same in ((apart, False), (shared, True)):
        positive, negative = batches["positive"], batches["negative"]
        assert positive.names == negative.names
        assert all(map(torch.equal, positive.noise, negative.noise)) is same
        assert torch.equal(positive.times, negative.times) is same
        assert not any(map(torch.equal, positive.latents, negative.latents))
    assert not torch.equal(shared["anchor"].times, shared["positive"].times)


def test_an_anchor_is_another_positive(encoded: EncodedSet) -> None:
    pairs = [
        pair
        for step in range(40)
        for batches in [draw_batches(encoded, SETTINGS, step)]
        for pair in zip(batches["positive"].names, batches["anchor"].names, strict=True)
    ]
    assert all(one != other for one, other in pairs)
    assert len(set(pairs)) == 20


@pytest.mark.parametrize(
    ("rule", "branches"),
    [
        ("plain", ["positive"]),
        ("overlap", ["positive", "negative"]),
        ("mean", ["positive", "negative"]),
    ],
)
def test_only_the_branches_a_rule_needs(
    encoded: EncodedSet, rule: str, branches: list[str]
) -> None:
    assert list(draw_batches(encoded, replace(SETTINGS, rule=rule), 0)) == branches


def test_mean_denies_the_style_to_negatives(tmp_path: Path) -> None:
    style_set, denoiser = small_set(tmp_path), SmallDenoiser()
    item = style_set.items[0]
    assert denial(style_set, item) == "a shape number 0 not in the style of sks"
    other = replace(style_set, template="{caption}, {token} art")
    assert denial(other, item) == "a shape number 0, not sks art"
    settings = replace(SETTINGS, rule="mean", batch=4)
    batches = draw_batches(encode_set(settings, denoiser, style_set), settings, 0)
    for branch, phrase in (("positive", "in"), ("negative", "not in")):
        texts = [f"a shape number {n[-1]} {phrase} the style of sks" for n in batches[branch].names]
        expected = denoiser.encode_prompts(texts)["states"]
        assert torch.equal(batches[branch].conditioning["states"], expected)


def test_mixed_sizes_have_the_gradient_of_the_mean(encoded: EncodedSet) -> None:
    denoiser = SmallDenoiser()
    parameters = [denoiser.network.conv_in.weight.requires_grad_(), denoiser.network.conv_out.bias]
    parameters[1].requires_grad_()
    batch = draw_batches(encoded, replace(SETTINGS, batch=5), 0)["positive"]
    assert len({latents.shape for latents in batch.latents}) == 2
    passes = BranchPasses(denoiser, parameters)
    whole = passes({"positive": batch})["positive"]
    single = [passes({"positive": _only(batch, row)})["positive"] for row in range(5)]
    torch.testing.assert_close(whole.losses, torch.cat([part.losses for part in single]))
    for place, gradient in enumerate(whole.gradients):
        mean = torch.stack([part.gradients[place] for part in single]).mean(0)
        torch.testing.assert_close(gradient, mean, rtol=1e-4, atol=1e-6)


def _only(batch: Batch, row: int) -> Batch:
    return Batch(
        batch.names[row : row + 1],
        batch.latents[row : row + 1],
        {k: v[row : row + 1] for k, v in batch.conditioning.items()},
        batch.noise[row : row + 1],
        batch.times[row : row + 1],
    )


class OverwritingDenoiser(SmallDenoiser):
    """Overwrites an activation that the backward pass needs, as networks written to draw may."""

    def loss(self, *args):
        def overwrite(module, inputs, output):
            inputs[0].add_(1.0)

        hook = self.network.conv_out.register_forward_hook(overwrite)
        try:
            return super().loss(*args)
        finally:
            hook.remove()


def test_a_network_that_overwrites_its_activations(encoded: EncodedSet) -> None:
    batches = draw_batches(encoded, SETTINGS, 0)
    results = []
    for denoiser in (SmallDenoiser(), OverwritingDenoiser()):
        parameter = denoiser.network.conv_out.weight.requires_grad_()
        results.append(BranchPasses(denoiser, [parameter])(batches))
    expected, found = results
    for name, result in found.items():
        assert torch.equal(result.losses, expected[name].losses)
        torch.testing.assert_close(result.gradients, expected[name].gradients)
