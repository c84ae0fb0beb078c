"""What the trials compute of gradients and losses: plain algebra, in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

BETA_2, EPSILON = 0.999, 1e-8
"""Of `torch.optim.AdamW`, whose defaults the library takes."""


def out_of_span(vector: Tensor, others: Sequence[Tensor]) -> Tensor:
    """The vector less its orthogonal projection onto the span of the others.

    By modified Gram-Schmidt, each vector orthogonalised twice (Giraud, Langou, Rozloznik: "twice is
    enough"). Of an other that lies in the span of those before it, to 1e-12 of its length, nothing
    is left to be removed.

    Args:
        vector, others: floating point `[n]`.

    Returns:
        `[n]` in the dtype of `vector`.
    """
    basis: list[Tensor] = []
    for other in others:
        left = _less(_less(other.double(), basis), basis)
        if left.norm() > 1e-12 * other.double().norm():
            basis.append(left / left.norm())
    return _less(_less(vector.double(), basis), basis).to(vector.dtype)


def _less(vector: Tensor, basis: Sequence[Tensor]) -> Tensor:
    for direction in basis:
        vector = vector - torch.dot(vector, direction) * direction
    return vector


class RunningAverage:
    """An exponential moving average that starts from nothing, without its bias towards it.

    After `t` values it is sum_i (1 - d) d^(t-i) g_i / (1 - d^t): arXiv 1412.6980, section 3.
    """

    def __init__(self, decay: float) -> None:
        self._decay, self._count, self._sums = decay, 0, []

    def add(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The average with these values (one tensor per parameter), in their dtype."""
        kept = self._sums or [torch.zeros_like(value, dtype=torch.float64) for value in values]
        self._sums = [old.lerp(new.double(), 1 - self._decay) for old, new in
                      zip(kept, values, strict=True)]  # fmt: skip
        self._count += 1
        bias = 1 - self._decay**self._count
        return [(one / bias).to(value.dtype) for one, value in zip(self._sums, values, strict=True)]


def adam_scale(second_moment: Tensor, steps: int) -> Tensor:
    """(sqrt(v / (1 - beta_2^t)) + epsilon)^(-1/2): arXiv 1412.6980, algorithm 1.

    The dot product of two vectors that are multiplied by it is theirs weighted by
    1 / (sqrt(v_hat) + epsilon), the factor with which Adam turns a gradient into a step.

    Args:
        second_moment: v, `[n]`, as the optimizer keeps it.
        steps: t, from 1.

    Returns:
        float64 `[n]`.
    """
    unbiased = second_moment.double() / (1 - BETA_2**steps)
    return (unbiased.sqrt() + EPSILON).rsqrt()


def dpo_weights(
    beta: float, positive: Tensor, positive_start: Tensor, negative: Tensor, negative_start: Tensor
) -> Tensor:
    """sigmoid(beta / 2 * ((L_p - L_p_ref) - (L_n - L_n_ref))) of each pair, float64 `[n]`.

    Diffusion-DPO (arXiv 2311.12908, equation 14) has the loss

        -log sigmoid(-beta T w ((L_p - L_p_ref) - (L_n - L_n_ref)))

    of a preferred and another picture, L the denoising loss at one time and "ref" the model before
    training. Its gradient is this weight times beta T w (g_p - g_n): 1/2 at the start, and nothing
    any more once the model tells the pair apart. beta T w is beta / 2 for mean squared errors, as
    in the authors' code (github.com/SalesforceAIResearch/DiffusionDPO, train.py).

    Args:
        beta: above 0; the authors' 2000 to 5000 are for whole models.
        positive, positive_start, negative, negative_start: losses `[n]`, now and before training.
    """
    margin = (positive - positive_start).double() - (negative - negative_start).double()
    return torch.sigmoid(beta / 2 * margin)
