"""FID and KID as papers report them that used gan-metrics-pytorch, NSYNC's among them.

Not FID and not KID: that code (github.com/abdulfatir/gan-metrics-pytorch, fid_score.py and
kid_score.py) takes torchvision's ImageNet Inception instead of the 2015 network and gives, for FID,
the mean over resamples of the pictures, 14 to 45 % above the value itself. For parity with printed
tables only, and to be labelled so.
"""

import numpy as np

from .distances import frechet_distance, kernel_distance_subsets
from .features import Features, as_features, as_set

_MOST_IN_SUBSET = 1000


def bootstrapped_frechet(
    x: Features, y: Features, *, resamples: int = 10, seed: int = 0
) -> tuple[float, float]:
    """The mean and standard deviation of `frechet_distance` over resampled sets.

    Args:
        x: `[n, d]`, the references, at least 2.
        y: `[m, d]`, at least 2.
        resamples: how often both sets are drawn anew, with replacement.
        seed: the original draws from numpy's global state; `np.random.seed(seed)` before it makes
            it draw the same.

    Raises:
        InputError: bad features (see `features.as_features`).
    """
    first = as_features("x", x, 2)
    second = as_set("y", y, first, 2)
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(resamples):
        a = first[rng.choice(len(first), len(first), replace=True)]
        b = second[rng.choice(len(second), len(second), replace=True)]
        values.append(frechet_distance(a, b))
    return float(np.mean(values)), float(np.std(values))


def subset_kernel(x: Features, y: Features, *, seed: int = 0) -> tuple[float, float]:
    """KID over 100 subsets of 1,000 pictures, or of all where a set has fewer.

    The original stops with an error under 1,000 pictures, so tables of smaller sets were made with
    a changed copy; the largest subset that fits is our guess at the change.

    Args:
        x: `[n, d]`, the references, at least 2.
        y: `[m, d]`, at least 2.
        seed: as `bootstrapped_frechet`.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        InputError: bad features.
    """
    first = as_features("x", x, 2)
    second = as_set("y", y, first, 2)
    size = min(len(first), len(second), _MOST_IN_SUBSET)
    return kernel_distance_subsets(first, second, subsets=100, subset_size=size, seed=seed)
