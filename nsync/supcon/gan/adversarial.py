"""Which adversarial loss a GAN is trained with, on all that its discriminators are asked.

A discriminator that is asked for "real" apart from the text (`contract.Judged`) has a loss for each
question; hinge losses of both are added, as the cross-entropy of AttnGAN's generator is.
"""

from torch import Tensor

from .contract import Judged
from .cross_entropy import discriminator_cross_entropy, generator_cross_entropy
from .penalties import discriminator_hinge, generator_hinge

HINGE, CROSS_ENTROPY = ADVERSARIAL = ("hinge", "cross-entropy")
"""`penalties`, and `cross_entropy`."""


def discriminator_loss(
    kind: str, matching: Judged, fake: Judged, mismatching: Judged | None
) -> Tensor:
    """Of one stage, a scalar, without penalties.

    Args:
        kind: one of `ADVERSARIAL`.
        matching: real pictures with their texts.
        fake: painted ones.
        mismatching: real ones with other texts, if there are any.
    """
    if kind == CROSS_ENTROPY:
        return discriminator_cross_entropy(matching, fake, mismatching)
    other = None if mismatching is None else mismatching.score
    total = discriminator_hinge(matching.score, fake.score, other)
    if matching.unconditional is None:
        return total
    return total + discriminator_hinge(matching.unconditional, fake.unconditional)


def generator_loss(kind: str, fake: Judged) -> Tensor:
    """Of one stage, a scalar.

    Args:
        kind: one of `ADVERSARIAL`.
        fake: painted pictures with their texts.
    """
    if kind == CROSS_ENTROPY:
        return generator_cross_entropy(fake)
    total = generator_hinge(fake.score)
    return total if fake.unconditional is None else total + generator_hinge(fake.unconditional)
