"""What families of stages are made of: attention, the drawn condition, masks, spectral norms."""

import math
from dataclasses import replace

import pytest
import torch
from gan_files import normal
from staged_files import FAMILIES as WIDE
from staged_files import built, told
from torch import nn
from torch.nn.utils import parametrize

from nsync.errors import InputError
from nsync.supcon.gan.contract import Judged
from nsync.supcon.gan.cross_entropy import discriminator_cross_entropy, generator_cross_entropy
from nsync.supcon.gan.stages import ConditioningAugmentation, attend

FAMILIES = {name: replace(family, image_size=32) for name, family in WIDE.items()}


def test_attention_is_the_formula():
    maps, keys, values = normal("m", 2, 3, 2, 2), normal("k", 2, 4, 3), normal("v", 2, 4, 5)
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]]).bool()
    read = attend(maps, keys, values, mask)
    for n in range(2):
        there = [k for k in range(4) if mask[n, k]]
        for y in range(2):
            for x in range(2):
                place = maps[n, :, y, x].tolist()
                scores = [
                    math.exp(sum(a * b for a, b in zip(place, keys[n, k].tolist(), strict=True)))
                    for k in there
                ]
                shares = zip(scores, there, strict=True)
                expected = sum(s / sum(scores) * values[n, k] for s, k in shares)
                assert torch.allclose(read[n, :, y, x], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_text_without_words_is_read_as_nothing(dtype):
    maps, keys = normal("m", 2, 3, 2, 2).to(dtype), normal("k", 2, 4, 3).to(dtype)
    keys.requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    read = attend(maps, keys, keys, mask)
    assert read[0].all()
    assert torch.equal(read[1], torch.zeros(3, 2, 2, dtype=dtype))
    read.float().sum().backward()
    assert keys.grad.isfinite().all()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", FAMILIES)
def test_padding_is_hidden_and_words_are_seen(name, mode):
    family = FAMILIES[name]
    generator = getattr(built(family).generator, mode)()
    noise, text, words, mask = told(family)
    with torch.no_grad():
        images = generator(noise, text, words, mask).images
        other = torch.where(mask[:, :, None], words, 100 * words.flip(0))
        padded = generator(noise, text, other, mask).images
        assert all(map(torch.equal, images, padded))
        longer = torch.cat([words, words], 1), torch.cat([mask, torch.zeros_like(mask)], 1)
        for one, same in zip(images, generator(noise, text, *longer).images, strict=True):
            assert torch.allclose(one, same, rtol=1e-9, atol=1e-12)
        every = generator(noise, text, words, torch.ones_like(mask)).images
        assert all(map(torch.equal, every, generator(noise, text, words).images))
        for k, (one, seen) in enumerate(zip(images, every, strict=True)):
            # The first stage looks at no words; the first text has no padding.
            assert torch.allclose(one[1:], seen[1:], rtol=1e-6) == (k == 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_order_of_words_has_no_say(name):
    family = FAMILIES[name]
    generator = built(family).generator.eval()
    noise, text, words, mask = told(family)
    order = torch.tensor([4, 2, 0, 3, 1])
    images = generator(noise, text, words, mask).images
    turned = generator(noise, text, words[:, order], mask[:, order]).images
    for one, other in zip(images, turned, strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_depends_on_its_batch_in_training_only(name):
    family = FAMILIES[name]
    generator = built(family).generator
    given = told(family)
    for mode in ("train", "eval"):
        getattr(generator, mode)()
        with torch.no_grad():
            together = generator(*given).images
            apart = generator(*(each[:2] for each in given)).images
        for one, other in zip(together, apart, strict=True):
            assert torch.allclose(one[:2], other, rtol=1e-6) == (mode == "eval")


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_noise_gives_equal_pictures_whatever_the_global_state(name):
    generator = built(FAMILIES[name]).generator.eval()
    given = told(FAMILIES[name])
    with torch.no_grad():
        before = torch.get_rng_state()
        one, other = generator(*given).images, generator(*given).images
        assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one, other))


def test_the_condition_is_drawn_as_the_text_says():
    augment = ConditioningAugmentation(4, 3).double()
    text = normal("t", 2, 4)
    mean, log_variance = augment.encode(text).chunk(2, 1)
    said = torch.distributions.Normal(mean, (log_variance / 2).exp())
    condition, divergence = augment(text, torch.zeros(2, 3).double())
    assert torch.equal(condition, mean)
    standard = torch.distributions.Normal(torch.zeros(2, 3).double(), 1.0)
    expected = torch.distributions.kl_divergence(said, standard).mean(1)
    assert torch.allclose(divergence, expected, rtol=1e-12)
    drawn, _ = augment(text, normal("e", 2, 3))
    assert torch.allclose((drawn - said.mean) / said.stddev, normal("e", 2, 3), rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_words_there_is_one_error(name):
    noise, text, *_ = told(FAMILIES[name])
    with pytest.raises(InputError, match=r"words.*looks at words"):
        built(FAMILIES[name]).generator(noise, text)


def test_spectral_norms_hold_the_largest_singular_value_at_one():
    """And move while training only, so that judging leaves no trace."""
    torch.manual_seed(0)
    judge = FAMILIES["DM-GAN"].build().discriminators[-1]
    normed = [each for each in judge.modules() if parametrize.is_parametrized(each)]
    convolutions = [each for each in judge.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) - len(normed) == 2  # all but those that say the two scores
    pictures, text = torch.randn(2, 3, 32, 32), torch.randn(2, 12)
    before = {key: value.clone() for key, value in judge.eval().state_dict().items()}
    judge.judge(judge.features(pictures), text)
    assert all(torch.equal(before[key], value) for key, value in judge.state_dict().items())
    with torch.no_grad():
        for each in normed:
            each.parametrizations.weight.original.mul_(3).add_(0.05)
        for _ in range(100):
            judge.train().judge(judge.features(pictures), text)
        judge.eval()
    for each in normed:
        largest = torch.linalg.svdvals(each.weight.flatten(1))[0]
        assert largest.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_begin_as_published(name):
    """Orthogonal convolutions and linear layers; normalisations around 1."""
    torch.manual_seed(0)
    for network in (FAMILIES[name].build().generator, *FAMILIES[name].build().discriminators):
        for part in network.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                normed = parametrize.is_parametrized(part)
                weight = part.parametrizations.weight.original if normed else part.weight
                values = torch.linalg.svdvals(weight.flatten(1))
                assert torch.allclose(values, torch.ones_like(values), atol=1e-5)
            if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert (part.weight - 1).abs().max() < 0.1
                assert part.weight.std() > 1e-3


def test_cross_entropy_is_the_published_sum():
    def likely(scores, target):
        chances = [1 / (1 + math.exp(-s)) for s in scores.tolist()]
        return -sum(math.log(c if target else 1 - c) for c in chances) / len(chances)

    features = torch.zeros(2, 1)
    real, fake, other = (Judged(normal(f"s{k}", 2), features, normal(f"u{k}", 2)) for k in range(3))
    reals = likely(real.score, 1) + likely(real.unconditional, 1)
    fakes = likely(fake.score, 0) + likely(fake.unconditional, 0)
    wrong = likely(other.score, 0)
    loss = discriminator_cross_entropy(real, fake, other)
    assert loss.item() == pytest.approx(reals / 2 + (fakes + wrong) / 3, rel=1e-12)
    none = Judged(torch.zeros(0), torch.zeros(0, 1), torch.zeros(0))
    for without in (None, none):
        loss = discriminator_cross_entropy(real, fake, without)
        assert loss.item() == pytest.approx(reals / 2 + fakes / 2, rel=1e-12)
    asked = likely(fake.score, 1) + likely(fake.unconditional, 1)
    assert generator_cross_entropy(fake).item() == pytest.approx(asked, rel=1e-12)
    once = [Judged(each.score, features) for each in (real, fake, other)]
    expected = likely(real.score, 1) + (likely(fake.score, 0) + wrong) / 2
    assert discriminator_cross_entropy(*once).item() == pytest.approx(expected, rel=1e-12)
    assert generator_cross_entropy(once[1]).item() == pytest.approx(likely(fake.score, 1))


def test_cross_entropy_is_exact_for_great_scores_and_in_half_precision():
    high = Judged(torch.full((2,), 300.0).half(), torch.zeros(2, 1).half())
    low = Judged(-high.score, high.features)
    assert generator_cross_entropy(low).item() == 300
    assert generator_cross_entropy(high).item() == 0
    assert discriminator_cross_entropy(low, high).item() == 600
    assert discriminator_cross_entropy(low, high).dtype == torch.float32
