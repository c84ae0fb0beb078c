"""Draws depend on (seed, step, branch, item) alone, and are distributed as they say."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from denoisers import SmallDenoiser, small_set
from torch import Tensor

from nsync.batches import (
    EncodedSet,
    check_set,
    denial,
    draw_batches,
    draw_noise,
    encode_set,
)
from nsync.branches import Batch
from nsync.errors import InputError
from nsync.settings import TrainSettings

SETTINGS = TrainSettings(batch=2)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedSet:
    style_set = small_set(tmp_path_factory.mktemp("set"), 5)
    return encode_set(SETTINGS, SmallDenoiser(), style_set)


def many(count: int = 8, size: int = 1) -> EncodedSet:
    """A set to draw from by the thousand."""
    names = tuple(f"item {place}" for place in range(count))
    pictures = tuple(torch.zeros(4, size, size) for _ in names)
    return EncodedSet(names, pictures, tuple((p,) for p in pictures), names, names)


def assert_same(one: Batch, other: Batch) -> None:
    assert (one.names, one.prompts) == (other.names, other.prompts)
    assert torch.equal(one.times, other.times)
    assert all(map(torch.equal, one.noise, other.noise))
    assert all(map(torch.equal, one.latents, other.latents))


def test_an_epoch_shows_every_positive_once(encoded: EncodedSet) -> None:
    names = [
        n for step in range(5) for n in draw_batches(encoded, SETTINGS, step)["positive"].names
    ]
    assert sorted(names[:5]) == sorted(names[5:]) == sorted(encoded.names)
    assert names[:5] != names[5:]


def test_a_step_can_be_drawn_without_the_ones_before(encoded: EncodedSet) -> None:
    settings = replace(SETTINGS, caption_dropout=0.5, times="logit-normal", noise_offset=0.1)
    first = draw_batches(encoded, settings, 7)
    draw_batches(encoded, settings, 3)
    torch.randn(5)
    again = draw_batches(encoded, settings, 7)
    for name, batch in first.items():
        assert_same(batch, again[name])


def test_drawing_leaves_the_processes_own_generator_alone(encoded: EncodedSet) -> None:
    state = torch.get_rng_state()
    draw_batches(encoded, replace(SETTINGS, caption_dropout=0.5, noise_offset=0.1), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_belongs_to_the_item_not_to_its_place(encoded: EncodedSet) -> None:
    wide = draw_batches(encoded, replace(SETTINGS, batch=5), 0)["positive"]
    narrow = draw_batches(encoded, replace(SETTINGS, batch=3), 0)["positive"]
    for place, name in enumerate(narrow.names):
        other = wide.names.index(name)
        assert torch.equal(narrow.noise[place], wide.noise[other])
        assert narrow.times[place] == wide.times[other]


def test_accumulated_batches_are_the_larger_batch(encoded: EncodedSet) -> None:
    for step in range(4):
        parts = draw_batches(encoded, replace(SETTINGS, batch=2, accumulate=3), step)
        whole = draw_batches(encoded, replace(SETTINGS, batch=6), step)
        assert len(whole["positive"].names) == 6
        for name, batch in whole.items():
            assert_same(parts[name], batch)


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
        ("nsync", ["positive", "negative", "anchor"]),
    ],
)
def test_only_the_branches_a_rule_needs(
    encoded: EncodedSet, rule: str, branches: list[str]
) -> None:
    assert list(draw_batches(encoded, replace(SETTINGS, rule=rule), 0)) == branches


def test_mean_denies_the_style_to_negatives(tmp_path: Path) -> None:
    style_set = small_set(tmp_path)
    item = style_set.items[0]
    assert denial(style_set, item) == "a shape number 0 not in the style of sks"
    other = replace(style_set, template="{caption}, {token} art")
    assert denial(other, item) == "a shape number 0, not sks art"
    settings = replace(SETTINGS, rule="mean", batch=4)
    batches = draw_batches(encode_set(settings, SmallDenoiser(), style_set), settings, 0)
    for branch, phrase in (("positive", "in"), ("negative", "not in")):
        texts = [f"a shape number {n[-1]} {phrase} the style of sks" for n in batches[branch].names]
        assert list(batches[branch].prompts) == texts


def drawn_times(settings: TrainSettings, steps: int) -> Tensor:
    batches = [draw_batches(many(), settings, step)["positive"] for step in range(steps)]
    return torch.cat([batch.times for batch in batches]).double()


DISTRIBUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda t: t,
    "logit-normal": lambda t: torch.special.ndtr(torch.logit(t)),
    "early": lambda t: t ** (1 / 3),
}
"""P(time <= t): of u it is t, of sigmoid(z) the normal one at logit(t), of u^3 the cube root."""


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_times_are_distributed_as_they_say(name: str) -> None:
    """By Kolmogorov and Smirnov: D * sqrt(n) is above 1.63 once in a hundred seeds, and for
    another of the three distributions it would be above 8."""
    settings = replace(SETTINGS, rule="plain", batch=8, times=name)
    times = drawn_times(settings, 250).sort().values
    assert 0 <= times.min() < times.max() <= 1
    steps = torch.arange(len(times) + 1).double() / len(times)
    for other, distribution in DISTRIBUTIONS.items():
        expected = distribution(times)
        distance = torch.maximum(steps[1:] - expected, expected - steps[:-1]).max()
        assert (distance * math.sqrt(len(times)) < 1.63) == (other == name)


def drawn_noise(settings: TrainSettings) -> Tensor:
    noise = [draw_batches(many(size=16), settings, s)["positive"].noise for s in range(40)]
    return torch.stack([one for each in noise for one in each])


def test_noise_offset_is_one_constant_per_channel() -> None:
    settings = replace(SETTINGS, rule="plain", batch=8)
    plain, shifted = drawn_noise(settings), drawn_noise(replace(settings, noise_offset=0.5))
    added = shifted - plain  # [320, 4, 16, 16]
    channels = added.mean((2, 3))
    torch.testing.assert_close(added, channels[..., None, None].expand_as(added))
    # 1280 channels: a deviation is known to 2 %, a mean to 3 % of the deviation.
    assert channels.std() == pytest.approx(0.5, rel=0.08)
    assert abs(channels.mean()) < 0.06
    assert abs(torch.corrcoef(channels.T) - torch.eye(4)).max() < 0.25
    assert plain.std() == pytest.approx(1, rel=0.01)
    # The constants are none of the plain noise, neither of a pixel nor of all.
    others = torch.cat([plain.flatten(2), plain.mean((2, 3))[..., None]], 2).flatten(0, 1)
    together = torch.corrcoef(torch.cat([channels.flatten()[:, None], others], 1).T)
    assert abs(together[0, 1:]).max() < 0.14


def test_a_videos_latents_have_one_constant_per_channel_as_well() -> None:
    source = torch.Generator()
    drawn = [draw_noise(torch.Size([3, 2, 4, 4]), by, source.manual_seed(0)) for by in (0.0, 0.5)]
    added = drawn[1] - drawn[0]
    torch.testing.assert_close(added, added[:, :1, :1, :1].expand_as(added))
    assert len(added[:, 0, 0, 0].unique()) == 3


def dropped(settings: TrainSettings, steps: int) -> dict[str, list[dict[str, bool]]]:
    """Whose prompt is empty, by branch, step and item."""
    found: dict[str, list[dict[str, bool]]] = {}
    for step in range(steps):
        for branch, batch in draw_batches(many(), settings, step).items():
            prompts = zip(batch.names, batch.prompts, strict=True)
            found.setdefault(branch, []).append({name: not text for name, text in prompts})
    return found


def test_captions_are_dropped_as_often_as_asked() -> None:
    settings = replace(SETTINGS, batch=8, caption_dropout=0.3)
    found = dropped(settings, 250)
    for steps in found.values():
        seen = torch.tensor([drop for step in steps for drop in step.values()]).float()
        assert seen.mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / len(seen)))
    # A negative goes with its positive, an anchor by itself.
    assert found["positive"] == found["negative"]
    pairs = [
        (drop, others[name])
        for step, others in zip(found["positive"], found["anchor"], strict=True)
        for name, drop in step.items()
        if name in others
    ]
    assert abs(torch.corrcoef(torch.tensor(pairs).float().T)[0, 1]) < 4 / math.sqrt(len(pairs))


def test_dropping_captions_changes_nothing_else(encoded: EncodedSet) -> None:
    whole = draw_batches(encoded, SETTINGS, 3)
    without = draw_batches(encoded, replace(SETTINGS, caption_dropout=0.999), 3)
    for name, batch in whole.items():
        assert set(without[name].prompts) == {""}
        assert_same(batch, replace(without[name], prompts=batch.prompts))
        assert all(text.endswith("in the style of sks") for text in batch.prompts)


def test_all_prompts_that_are_drawn_were_encoded(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rule="mean", caption_dropout=0.5, validation=1)
    denoiser = SmallDenoiser()
    encoded = encode_set(settings, denoiser, small_set(tmp_path))
    prompts = encoded.prompts(denoiser, settings)
    drawn = {
        text
        for step in range(8)
        for batch in draw_batches(encoded, settings, step).values()
        for text in batch.prompts
    }
    drawn |= {text for *_, text in encoded.held_out}
    assert len(drawn) == 8  # three pictures' two, the held-out one's, and the empty one
    expected = denoiser.encode_prompts(sorted(drawn))
    found = prompts(sorted(drawn))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one["states"], other["states"])


def test_held_out_pictures_are_never_drawn(tmp_path: Path) -> None:
    settings, style_set = replace(SETTINGS, validation=2), small_set(tmp_path, 6)
    encoded = encode_set(settings, SmallDenoiser(), style_set)
    held = {name for name, *_ in encoded.held_out}
    assert len(held) == 2
    assert held | set(encoded.names) == {item.name for item in style_set.items}
    assert len(encoded.names) == len(encoded.negatives) == len(encoded.texts) == 4
    drawn = {
        name
        for step in range(30)
        for batch in draw_batches(encoded, settings, step).values()
        for name in batch.names
    }
    assert drawn == set(encoded.names)
    whole = encode_set(SETTINGS, SmallDenoiser(), style_set)
    for name, latents, text in encoded.held_out:
        place = whole.names.index(name)
        assert torch.equal(latents, whole.positives[place])
        assert text == whole.texts[place]


def test_the_seed_alone_says_who_is_held_out(tmp_path: Path) -> None:
    def held(folder: str = "a", **changes: object) -> set[str]:
        settings = replace(SETTINGS, validation=2, **changes)
        style_set = small_set(tmp_path / folder, 6)
        return {name for name, *_ in encode_set(settings, SmallDenoiser(), style_set).held_out}

    torch.rand(3)
    others = {"rule": "plain", "steps": 7, "batch": 3, "times": "early", "caption_dropout": 0.5}
    assert held() == held("b") == held(**others)
    assert len({frozenset(held(seed=seed)) for seed in range(5)}) > 2


def test_too_many_held_out_is_an_input_error(tmp_path: Path) -> None:
    style_set, denoiser = small_set(tmp_path), SmallDenoiser()
    check_set(replace(SETTINGS, validation=2), denoiser, style_set)
    with pytest.raises(InputError, match=r"`validation`.*got 3 of 4"):
        check_set(replace(SETTINGS, validation=3), denoiser, style_set)


@pytest.mark.parametrize(
    ("template", "fits"),
    [
        ("{caption} in the style of {token}", True),
        ("{caption}\u3001{token}", True),
        ("{caption}, {token}_style", False),
        ("{caption} in {token}style", False),
        ("{token}\u98ce\u683c, {caption}", False),
    ],
)
def test_the_word_of_an_embedding_stands_by_itself(
    tmp_path: Path, template: str, fits: bool
) -> None:
    style_set = replace(small_set(tmp_path), template=template)
    check_set(SETTINGS, SmallDenoiser(), style_set)  # a LoRA reads it in any case
    for trains in ("embedding", "LoRA and embedding"):
        settings = replace(SETTINGS, trains=trains)
        if fits:
            check_set(settings, SmallDenoiser(), style_set)
            continue
        with pytest.raises(InputError, match=r"`template`.*between spaces.*sks"):
            check_set(settings, SmallDenoiser(), style_set)
