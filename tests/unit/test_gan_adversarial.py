"""The adversarial losses on one question and on two."""

import pytest
import torch
from gan_files import normal

from nsync.supcon.gan.adversarial import (
    ADVERSARIAL,
    CROSS_ENTROPY,
    HINGE,
    discriminator_loss,
    generator_loss,
)
from nsync.supcon.gan.contract import Judged
from nsync.supcon.gan.cross_entropy import discriminator_cross_entropy, generator_cross_entropy

FEATURES = torch.zeros(4, 1)


def judged(name, asked_apart):
    apart = normal(f"u {name}", 4) if asked_apart else None
    return Judged(normal(f"s {name}", 4), FEATURES, apart)


def below(scores, sign):
    return sum(max(0, 1 + sign * s) for s in scores.tolist()) / len(scores)


@pytest.mark.parametrize("asked_apart", [False, True])
@pytest.mark.parametrize("wrong", [False, True])
def test_hinges_of_all_questions_are_added(asked_apart, wrong):
    real, fake, other = (judged(name, asked_apart) for name in ("real", "fake", "other"))
    expected = below(real.score, -1)
    if wrong:
        expected += (below(fake.score, 1) + below(other.score, 1)) / 2
    else:
        expected += below(fake.score, 1)
    asked = -fake.score.mean().item()
    if asked_apart:
        expected += below(real.unconditional, -1) + below(fake.unconditional, 1)
        asked -= fake.unconditional.mean().item()
    loss = discriminator_loss(HINGE, real, fake, other if wrong else None)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert generator_loss(HINGE, fake).item() == pytest.approx(asked, rel=1e-12)


def test_cross_entropy_is_the_published_one():
    real, fake, other = (judged(name, True) for name in ("real", "fake", "other"))
    loss = discriminator_loss(CROSS_ENTROPY, real, fake, other)
    assert torch.equal(loss, discriminator_cross_entropy(real, fake, other))
    assert torch.equal(generator_loss(CROSS_ENTROPY, fake), generator_cross_entropy(fake))
    assert set(ADVERSARIAL) == {HINGE, CROSS_ENTROPY}
