"""How varied a set of pictures is, and how far pictures moved from where they were."""

import numpy as np

from .features import Features, as_features, as_pair, unit


def vendi_score(features: Features) -> float:
    """The effective number of different pictures, arXiv 2210.02410, definition 3.1.

    exp of the entropy of the eigenvalues of the pictures' cosines over n.

    Args:
        features: `[n, d]`, at least 1 picture; rows need not have length 1.

    Returns:
        1, all alike, to n, all at right angles.

    Raises:
        InputError: bad features (see `features.as_features`).
    """
    rows = unit("features", as_features("features", features))
    values = np.linalg.svd(rows / np.sqrt(len(rows)), compute_uv=False) ** 2
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def mean_pairwise_distance(features: Features) -> float:
    """The mean of 1 - cosine over all pairs of different pictures, 0..2 (at least 2 pictures).

    Raises:
        InputError: bad features; one picture.
    """
    rows = unit("features", as_features("features", features, 2))
    n, total = len(rows), rows.sum(axis=0)
    return float(1 - (total @ total - np.square(rows).sum()) / (n * (n - 1)))


def drift(before: Features, after: Features) -> np.ndarray:
    """How far each picture moved: 1 - cosine of the same prompt and seed before and after.

    Of pictures drawn without the style token, with a content encoder: what training changed that
    nobody asked for.

    Args:
        before: `[n, d]`, the base's pictures.
        after: `[n, d]`, the tuned model's, row by row the same prompts and seeds.

    Returns:
        float64 `[n]`, 0 (unchanged) to 2.

    Raises:
        InputError: bad features; unequal numbers of pictures.
    """
    like = as_features("before", before)
    first, second = as_pair(("before", "after"), (before, after), like)
    cosine = (unit("before", first) * unit("after", second)).sum(axis=1)
    return np.clip(1 - cosine, 0.0, 2.0)
