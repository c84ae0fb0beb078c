"""p-values by exchange: if two arms were one, swapping a pair of their pictures would not matter.

Both arms draw the same prompts with the same seeds. Under the null hypothesis that they draw alike,
every choice of swapped pairs was equally likely, whatever the score, biased or not, and however
few the pictures. The p-value is the share of choices with a difference at least as large as the
one observed, in either direction. The references are given, not drawn anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..draws import derive_seed
from ..errors import InputError
from .features import Features, as_scores

DRAWS = 9_999

_AT_ONCE = 512
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Swappable:
    """A difference between two arms that can be taken with pairs swapped.

    Attributes:
        difference: from swaps (bool `[k, pairs]`, True where a pair is swapped) to float64 `[k]`.
            Swapping all pairs only changes its sign.
        pairs: how many.
        resolution: differences as near to each other as this are equal but for rounding.
    """

    difference: Callable[[np.ndarray], np.ndarray]
    pairs: int
    resolution: float


@dataclass(frozen=True)
class Significance:
    """A p-value and how it came about.

    Attributes:
        p: two-sided, above 0.
        exact: every choice of swaps was looked at; otherwise random ones, and the observed one.
    """

    p: float
    exact: bool


def significance(swappable: Swappable, *, draws: int = DRAWS, seed: int = 0) -> Significance:
    """The p-value of a difference.

    Exact where all choices of swaps are not more than `draws` (14 pairs at 9,999); half of them
    are enough, for the other half has the same differences with the other sign. Otherwise
    (1 + as large) / (1 + draws), which holds its level for any number of draws (Phipson and Smyth,
    arXiv 1603.05766).

    Raises:
        InputError: no pair.
    """
    pairs = swappable.pairs
    if pairs < 1:
        raise InputError("pairs", "at least 1 pair of pictures", "0")
    observed = abs(float(swappable.difference(np.zeros((1, pairs), bool))[0]))
    least = observed - swappable.resolution
    if 2 ** (pairs - 1) <= draws:
        large = sum(_large(swappable, some, least) for some in _all_swaps(pairs))
        return Significance(large / 2 ** (pairs - 1), exact=True)
    rng = np.random.default_rng(derive_seed(seed, "swaps"))
    sizes = [min(_AT_ONCE, draws - i) for i in range(0, draws, _AT_ONCE)]
    large = sum(_large(swappable, rng.random((k, pairs)) < 0.5, least) for k in sizes)
    return Significance((1 + large) / (1 + draws), exact=False)


def sign_flips(differences: Features) -> Swappable:
    """The mean of per-picture differences `[n]`: swapping a pair changes the sign of its own.

    Raises:
        InputError: not one finite number per picture.
    """
    values = as_scores("differences", differences)

    def mean(swaps: np.ndarray) -> np.ndarray:
        return np.where(swaps, -values, values).mean(axis=1)

    return Swappable(mean, len(values), _ROUNDING * float(np.abs(values).max()))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number, in the order given: float64 `[k]`, 0..1.

    Below 0.05 for all that Holm's step-down procedure rejects at 5 % over the whole family
    (Holm 1979, Scand. J. Statist. 6).

    Raises:
        InputError: a value outside 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("p_values", "values 0..1", str(p.tolist()))
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def _large(swappable: Swappable, swaps: np.ndarray, least: float) -> int:
    return int((np.abs(swappable.difference(swaps)) >= least).sum())


def _all_swaps(pairs: int) -> list[np.ndarray]:
    """Every choice that leaves the first pair as it is, in parts."""
    bits = np.arange(pairs - 1)
    numbers = np.arange(2 ** (pairs - 1))[:, None]
    parts = [numbers[i : i + _AT_ONCE] >> bits & 1 for i in range(0, len(numbers), _AT_ONCE)]
    return [np.pad(part, ((0, 0), (1, 0))).astype(bool) for part in parts]
