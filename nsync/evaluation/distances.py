"""How far two sets of pictures lie apart: Frechet distance, kernel distances, Inception Score.

All of it in float64 and in closed form: no matrix square root, no iteration, no added epsilon, and
any number of pictures from 2 up. What a value means at that number is `policy.advice`'s to say.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..errors import InputError
from .features import Features, as_features, as_set

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
"""Of arXiv 2401.09603: bandwidth for unit features, and the factor that makes values readable."""

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]

_ROWS = 1024
_SUM_SLACK = 1e-3


def frechet_distance(x: Features, y: Features) -> float:
    """FID's formula: |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), arXiv 1706.08500, eq. 6.

    With `A` the centred features over sqrt(n - 1), `S = A^T A`, and the trace of the root of
    `S_x S_y` is the sum of the singular values of `A_x A_y^T`: exact also where there are fewer
    pictures than features and the covariances have no full rank, where `sqrtm` is off by 1e-4.

    Args:
        x: `[n, d]`, at least 2 pictures; for FID, 2048 features of the 2015 Inception network.
        y: `[m, d]`, at least 2.

    Returns:
        At least 0, in squared units of the features. Biased upwards by far when n or m is small.

    Raises:
        InputError: bad features (see `features.as_features`).
    """
    first = as_features("x", x, 2)
    second = as_set("y", y, first, 2)
    apart = first.mean(axis=0) - second.mean(axis=0)
    a, b = factor(first), factor(second)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    value = apart @ apart + np.square(a).sum() + np.square(b).sum() - 2 * shared
    return max(0.0, float(value))  # Below 0 by rounding only.


def factor(features: np.ndarray) -> np.ndarray:
    """`A` with `A^T A` the covariance of `features [n, d]` (n - 1), of at most d rows."""
    a = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(a, mode="r") if len(a) > a.shape[1] else a


def kernel_distance(x: Features, y: Features) -> float:
    """KID, arXiv 1801.01401: the unbiased squared MMD under the kernel (x . y / d + 1)^3.

    The U-statistic over all pictures at once, so n and m may differ and no subsets are drawn.

    Args:
        x: `[n, d]`, at least 2 pictures; for KID, 2048 features of the 2015 Inception network.
        y: `[m, d]`, at least 2.

    Returns:
        0 on average for two samples of one distribution, so now and then below 0.

    Raises:
        InputError: bad features.
    """
    first = as_features("x", x, 2)
    return _squared_mmd(first, as_set("y", y, first, 2), cubic_kernel, unbiased=True)


def kernel_distance_subsets(
    x: Features, y: Features, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """KID as torch-fidelity 0.4 gives it: over random subsets, the same ones for the same seed.

    Args:
        x: `[n, d]`.
        y: `[m, d]`.
        subsets: how many, at least 1.
        subset_size: pictures of each set in a subset, 2..min(n, m).
        seed: torch-fidelity's `rng_seed`.

    Returns:
        Mean and standard deviation over the subsets. The second is no confidence interval: it is
        0 when a subset is the whole set.

    Raises:
        InputError: bad features; a subset larger than a set.
    """
    first = as_features("x", x, 2)
    second = as_set("y", y, first, 2)
    most = min(len(first), len(second))
    if not 2 <= subset_size <= most:
        remedy = "kernel_distance() takes sets of any size at once."
        raise InputError("subset_size", f"2 to {most}", str(subset_size), remedy)
    if subsets < 1:
        raise InputError("subsets", "at least 1", str(subsets))
    rng = np.random.RandomState(seed)  # Not a Generator: the reference's draws are wanted.
    values = []
    for _ in range(subsets):
        a = first[rng.choice(len(first), subset_size, replace=False)]
        b = second[rng.choice(len(second), subset_size, replace=False)]
        values.append(_squared_mmd(a, b, cubic_kernel, unbiased=True))
    return float(np.mean(values)), float(np.std(values))


def cmmd(x: Features, y: Features, unbiased: bool = True) -> float:
    """CMMD, arXiv 2401.09603: 1000 times the squared MMD under exp(-|x - y|^2 / 200).

    The paper's code (github.com/google-research/google-research, cmmd/distance.py) is the biased
    form, whose value for two samples of one distribution is about 10 (1 - c) (1/n + 1/m), with c
    the mean cosine within a set: 0.65 at 10 pictures, as large as differences that get published.

    Args:
        x: `[n, d]`, at least 2 pictures; unit rows, of CLIP ViT-L/14 at 336 px. Taken as they are:
            the bandwidth is meant for length 1.
        y: `[m, d]`, at least 2.
        unbiased: leave a picture's kernel with itself out; False for the paper's numbers.

    Returns:
        Unbiased: 0 on average for two samples of one distribution. Biased: at least 0.

    Raises:
        InputError: bad features.
    """
    first = as_features("x", x, 2)
    second = as_set("y", y, first, 2)
    return CMMD_SCALE * _squared_mmd(first, second, gaussian_kernel, unbiased)


def inception_score(probabilities: Features, splits: int = 1) -> float:
    """exp of the mean KL divergence of p(class | picture) from p(class), arXiv 1606.03498.

    It never looks at a reference: not a measure of style. It is bounded by the pictures in a split,
    so one split is right under 5,000 pictures.

    Args:
        probabilities: `[n, classes]`, rows of sum 1: the softmax of the network's logits (1,008
            without bias, for agreement with torch-fidelity).
        splits: mean over so many consecutive parts of the rows, 1..n. torch-fidelity puts the rows
            into the order `np.random.RandomState(2020).permutation(n)` first.

    Returns:
        1..classes.

    Raises:
        InputError: not probabilities; more splits than pictures.
    """
    p = as_features("probabilities", probabilities)
    wrong = np.abs(p.sum(axis=1) - 1).max()
    if p.min() < 0 or wrong > _SUM_SLACK:
        got = f"{p.min():.3g} as the least value, sums off by up to {wrong:.3g}"
        remedy = "Take the softmax of the logits first."
        raise InputError("probabilities", "rows of values 0..1 with the sum 1", got, remedy)
    if not 1 <= splits <= len(p):
        raise InputError("splits", f"1 to the number of pictures, {len(p)}", str(splits))
    bounds = [i * len(p) // splits for i in range(splits + 1)]
    return float(np.mean([_score(p[a:b]) for a, b in pairwise(bounds)]))


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """KID's kernel of all pairs, `[n, m]`."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """CMMD's kernel of all pairs, `[n, m]`, 0..1."""
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)[None]
    return np.exp((2 * x @ y.T - squares) / (2 * CMMD_SIGMA**2))


def _squared_mmd(x: np.ndarray, y: np.ndarray, kernel: Kernel, unbiased: bool) -> float:
    between = _total(x, y, kernel) / (len(x) * len(y))
    return _within(x, kernel, unbiased) + _within(y, kernel, unbiased) - 2 * between


def _within(x: np.ndarray, kernel: Kernel, unbiased: bool) -> float:
    n, total = len(x), _total(x, x, kernel)
    if not unbiased:
        return total / n**2
    itself = sum(float(np.trace(kernel(rows, rows))) for rows in _bands(x))
    return (total - itself) / (n * (n - 1))


def _total(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> float:
    return sum(float(kernel(rows, y).sum()) for rows in _bands(x))


def _bands(x: np.ndarray) -> list[np.ndarray]:
    """The rows, some at a time: the kernel of 30,000 pictures would not fit in memory."""
    return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _score(p: np.ndarray) -> float:
    """The score of one split; a class of probability 0 adds 0, as x log x does towards 0."""
    mean = p.mean(axis=0)
    ratio = np.divide(p, mean, out=np.ones_like(p), where=p > 0)
    return float(np.exp((p * np.log(ratio)).sum(axis=1).mean()))
