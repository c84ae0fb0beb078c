"""Pictures of prompts: each by its own seed, whatever stands beside it."""

import math

import pytest
import torch
from gan_runs import GALIP, SSA_GAN, painter, small_encoders

from nsync.errors import InputError
from nsync.supcon.gan.sampler import draw_noise, generate

PROMPTS = ["a red dot", "a line of dots", "two lines", "a blue dot", "a red dot"]
SEEDS = [4, 5, 6, 7, 5]


@pytest.mark.parametrize("family", [SSA_GAN, GALIP], ids=["SSA-GAN", "GALIP"])
def test_a_picture_is_what_the_generator_makes_of_prompt_and_seed(family):
    net, encoders = painter(family), small_encoders()
    pixels = generate(net, encoders, PROMPTS, SEEDS)
    assert (pixels.shape, pixels.dtype) == ((5, 3, 16, 16), torch.float32)
    assert 0 <= pixels.min() < pixels.max() <= 1
    for place, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        read = encoders.texts([prompt])
        made = net(draw_noise(net.noise, seed)[None], *read)[-1][0]
        assert torch.allclose(pixels[place], (made / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_batches_do_not_matter():
    net, encoders, told = painter(SSA_GAN), small_encoders(), []
    whole = generate(net, encoders, PROMPTS, SEEDS)
    parts = generate(
        net, encoders, PROMPTS, SEEDS, batch=2, on_item=lambda *counts: told.append(counts)
    )
    assert torch.allclose(whole, parts, atol=1e-5)
    assert told == [(2, 5), (4, 5), (5, 5)]
    order = [3, 1, 4, 0, 2]
    turned = generate(net, encoders, [PROMPTS[k] for k in order], [SEEDS[k] for k in order])
    assert torch.allclose(whole[order], turned, atol=1e-5)
    again = generate(net, encoders, PROMPTS, SEEDS)
    assert torch.equal(whole, again)


def test_prompt_and_seed_both_matter():
    net, encoders = painter(SSA_GAN), small_encoders()
    pixels = generate(net, encoders, PROMPTS[:1] * 2 + PROMPTS[1:2], [1, 2, 1])
    assert (pixels[0] - pixels[1]).abs().max() > 1e-3
    assert (pixels[0] - pixels[2]).abs().max() > 1e-3


def test_noise_is_normal_and_truncated_noise_is_normal_between_its_ends():
    """Kolmogorov and Smirnov's distance, at a level of one in ten thousand."""
    count = 20000
    limit = 2.23 / math.sqrt(count)
    places = torch.arange(1, count + 1, dtype=torch.float64) / count
    for truncation in (0.0, 0.5, 2.0):
        drawn = draw_noise(count, 3, truncation).double().sort().values
        below = 0.5 * (1 + torch.erf(drawn / math.sqrt(2)))
        if truncation:
            assert drawn.abs().max() <= truncation
            cut = 0.5 * (1 + math.erf(-truncation / math.sqrt(2)))
            below = (below - cut) / (1 - 2 * cut)
        assert (below - places).abs().max() < limit


def test_truncation_changes_a_picture_smoothly():
    full = draw_noise(500, 3)
    wide, close, closer = (draw_noise(500, 3, each) for each in (6.0, 1.0, 0.99))
    assert torch.allclose(full, wide, atol=1e-3)
    assert (close - closer).abs().max() <= 0.011
    assert torch.equal(close.sign(), full.sign())
    assert not torch.equal(draw_noise(500, 4), full)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"prompts": [], "seeds": []}, "prompts.*at least one"),
        ({"seeds": [1]}, "seeds.*each of 2 prompts; got 1"),
        ({"truncation": -0.5}, r"truncation.*got -0\.5"),
        ({"truncation": math.nan}, "truncation"),
        ({"batch": 0}, "batch.*1 or more"),
        ({"prompts": ["a dot", "dot " * 65]}, r"(?s)too long.*65 tokens of 64"),
    ],
)
def test_bad_input_is_one_error(given, text):
    usual = {"prompts": PROMPTS[:2], "seeds": SEEDS[:2]}
    with pytest.raises(InputError, match=text):
        generate(painter(SSA_GAN), small_encoders(), **(usual | given))
