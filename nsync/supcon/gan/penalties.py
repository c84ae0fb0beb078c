"""What a discriminator and a generator are asked for: hinge losses and gradient penalties.

In full, as DF-GAN (arXiv 2008.05865) has it, and SSA-GAN and GALIP after it:

    discriminator: hinge(real, its text) + (hinge(fake, its text) + hinge(real, another text)) / 2
                   + 2 E |grad of the first score by picture and text|^6
    generator:     - E score(fake, its text)

Traps in the published code, and what is done here:

- The penalty's norm is a square root raised to the sixth power, whose gradient is NaN where the
  norm is 0. Here the sum of squares is raised to the third: the same value, no root.
- Mismatched texts are the batch's own, moved on by one, whatever they say. In a small set the next
  text is often the same, and a good pair is punished. `mismatched` takes the next *wrong* text.
- SSA-GAN's loop gives the penalty a step of its own in the same Adam, which divides by the
  gradient's size: there the factor 2 means nothing, and the two steps disturb each other's
  averages. GALIP adds it to the loss, which is what the formula above says.
- GALIP's form for mixed precision scales the score, not the gradients, before the sixth power.
  Here scores and gradients are taken to float32 first, and need no scaling.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import InputError


def discriminator_hinge(
    matching: Tensor, fake: Tensor, mismatching: Tensor | None = None
) -> Tensor:
    """The loss of a discriminator, without a penalty; see the top.

    Args:
        matching: float `[n]`, scores of real pictures with their texts.
        fake: float `[m]`, scores of generated pictures with their texts.
        mismatching: float `[k]`, scores of real pictures with other texts. None, or none of them,
            leaves the term out, and `fake` has the whole weight of 1.

    Returns:
        A scalar, float32 at least.
    """
    real, fakes = F.relu(1 - _exact(matching)).mean(), F.relu(1 + _exact(fake)).mean()
    if mismatching is None or len(mismatching) == 0:
        return real + fakes
    return real + (fakes + F.relu(1 + _exact(mismatching)).mean()) / 2


def generator_hinge(fake: Tensor) -> Tensor:
    """The adversarial loss of a generator: minus the mean score of its pictures.

    Args:
        fake: float `[m]`.
    """
    return -_exact(fake).mean()


def mismatched(apart: Tensor) -> tuple[Tensor, Tensor]:
    """For each item of a batch another whose text is wrong for it.

    Args:
        apart: bool `[n, n]`, True where the text of a column is wrong for the picture of a row.

    Returns:
        Two of int64 `[k]`: items, and whose text each is shown with: of the next item, around the
        end, that is apart. Items that nobody is apart from are left out.

    Raises:
        InputError: not bool `[n, n]`.
    """
    count = len(apart)
    if apart.dtype != torch.bool or apart.shape != (count, count):
        raise InputError("apart", "bool [n, n]", f"{apart.dtype} {tuple(apart.shape)}")
    items = torch.arange(count, device=apart.device)
    order = (items[:, None] + items[None]) % max(count, 1)
    other = apart.gather(1, order)
    partners = order.gather(1, other.long().argmax(1, keepdim=True)).flatten() if count else items
    found = other.any(1)
    return items[found], partners[found]


def matching_aware_penalty(
    score: Tensor, inputs: Sequence[Tensor], *, weight: float = 2.0, power: int = 6
) -> Tensor:
    """weight E |gradient of the score|^power: flat where real pictures meet their own texts.

    Source: DF-GAN (arXiv 2008.05865, eq. 2, with k = 2 and p = 6).

    Args:
        score: float `[n]`, of real pictures with matching texts, computed from `inputs`, where item
            i depends on row i of each input alone (no batch normalisation in a discriminator).
        inputs: what the gradient is taken of, together: observed pictures and texts. Each requires
            gradients and has n rows.
        weight: at least 0.
        power: even, 2 or more.

    Returns:
        A scalar, float32 at least, whose own gradient can be taken.

    Raises:
        InputError: an input without gradients or with other rows; such a power.
    """
    if power < 2 or power % 2:
        raise InputError("power", "an even number of 2 or more", repr(power))
    return weight * (_squared_norms(score, inputs) ** (power // 2)).mean()


def r1_penalty(score: Tensor, observed: Tensor, *, gamma: float = 10.0) -> Tensor:
    """gamma / 2 E |gradient of the score by the picture|^2, of real pictures.

    Source: Mescheder et al. (arXiv 1801.04406, eq. 9).

    Args:
        score: see `matching_aware_penalty`.
        observed: what the discriminator was shown; requires gradients.
        gamma: at least 0.

    Raises:
        InputError: as there.
    """
    return gamma / 2 * _squared_norms(score, [observed]).mean()


def _squared_norms(score: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Per item `[n]`, over all inputs together."""
    for k, given in enumerate(inputs):
        if not given.requires_grad or len(given) != len(score):
            got = f"{tuple(given.shape)}, requires_grad={given.requires_grad} (input {k})"
            raise InputError("inputs", f"{len(score)} rows that require gradients", got)
    total = _exact(score).sum()
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    return sum(_exact(each).flatten(1).square().sum(1) for each in gradients)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
