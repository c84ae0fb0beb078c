"""Features for the agreement of formulas: the same on every machine, for the same arguments."""

import numpy as np

_HIDDEN = 24


def features(seed: int, n: int, width: int, shift: float = 0.0) -> np.ndarray:
    """`[n, width]`, float64: at least 0, correlated and of an Inception network's size."""
    # RandomState, whose stream numpy has promised never to change.
    mixing = np.random.RandomState(7).standard_normal((_HIDDEN, width))
    rng = np.random.RandomState(seed)
    hidden, noise = rng.standard_normal((n, _HIDDEN)), rng.standard_normal((n, width))
    return np.maximum(0.08 * hidden @ mixing + 0.2 * noise + 0.25 + shift, 0.0)


def unit_features(seed: int, n: int, width: int, shift: float = 0.0) -> np.ndarray:
    """`features` at length 1, as CLIP and CSD give them."""
    rows = features(seed, n, width, shift)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def logits(seed: int, n: int, classes: int) -> np.ndarray:
    """`[n, classes]`, float64: spread like those of a classifier that has its opinions."""
    return 3.0 * np.random.RandomState(seed).standard_normal((n, classes))
