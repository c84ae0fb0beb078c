"""The losses that AttnGAN and DM-GAN were published with: cross-entropy of "real" and "not".

Source: `discriminator_loss` and `generator_loss` of `miscc/losses.py`, github.com/taoxugit/AttnGAN
(0d000e6), on scores before the sigmoid. A discriminator is asked twice, with the text and without
(`contract.Judged`); one that is not asked without has the terms with it alone.

Hinge losses are in `penalties`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .contract import Judged


def discriminator_cross_entropy(
    matching: Judged, fake: Judged, mismatching: Judged | None = None
) -> Tensor:
    """The loss of one stage's discriminator: the mean over what is real and that over what is not.

    Args:
        matching: real pictures with their texts.
        fake: generated pictures with their texts.
        mismatching: real pictures with other texts, of which only `score` counts. None, or none
            of them, leaves the term out.

    Returns:
        A scalar, float32 at least.
    """
    fakes = _scores(fake)
    if mismatching is not None and len(mismatching.score):
        fakes.append(mismatching.score)
    real = [_apart(-score) for score in _scores(matching)]
    other = [_apart(score) for score in fakes]
    return sum(real) / len(real) + sum(other) / len(other)


def generator_cross_entropy(fake: Judged) -> Tensor:
    """The adversarial loss of a generator in one stage, to be summed over stages.

    As published the sum, not the mean, of the terms with and without text.

    Args:
        fake: its pictures with their texts.
    """
    return sum(_apart(-score) for score in _scores(fake))


def _scores(judged: Judged) -> list[Tensor]:
    return [score for score in (judged.score, judged.unconditional) if score is not None]


def _apart(score: Tensor) -> Tensor:
    """-log sigmoid(-score), the mean: how far scores are from none being high."""
    return F.softplus(score.to(torch.promote_types(score.dtype, torch.float32))).mean()
