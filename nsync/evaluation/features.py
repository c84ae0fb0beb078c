"""Features as every score here wants them, and what is said when they are not.

A set of features is one array `[n, d]`: a row per picture, a column per feature of the encoder.
"""

import numpy as np
import torch

from ..errors import InputError

Features = np.ndarray | torch.Tensor

_NAMED = 5
_NOTHING = 1e-6


def as_features(name: str, features: Features, least: int = 1) -> np.ndarray:
    """The features as float64 on the host, after everything that can be wrong has been looked at.

    Args:
        name: what the user calls them.
        features: `[n, d]`, any real dtype, on any device.
        least: how many pictures the score needs.

    Raises:
        InputError: not `[n, d]`, not numbers, fewer than `least` pictures, NaN or infinite values.
    """
    array = _as_array(name, features)
    if array.ndim != 2 or array.shape[1] == 0:
        shape = f"shape {list(array.shape)}"
        raise InputError(name, "features of shape [pictures, features of a picture]", shape)
    if len(array) < least:
        wanted = f"features of at least {least} picture{'s' if least > 1 else ''}"
        raise InputError(name, wanted, str(len(array)), "Give more pictures.")
    _check_finite(name, array)
    return array


def as_set(name: str, features: Features, like: np.ndarray, least: int = 1) -> np.ndarray:
    """`as_features`, as wide as `like`.

    Raises:
        InputError: as `as_features`; another width.
    """
    array = as_features(name, features, least)
    if array.shape[1] != like.shape[1]:
        remedy = "Measure both sets with the same encoder."
        raise InputError(name, f"{like.shape[1]} features a picture", str(array.shape[1]), remedy)
    return array


def as_pair(
    names: tuple[str, str], features: tuple[Features, Features], like: np.ndarray, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets whose rows belong together: the same prompt and seed, drawn by two arms.

    Raises:
        InputError: as `as_set`; not as many rows in one as in the other.
    """
    first = as_set(names[0], features[0], like, least)
    second = as_set(names[1], features[1], like, least)
    check_paired(names, first, second)
    return first, second


def as_scores(name: str, scores: Features, least: int = 1) -> np.ndarray:
    """One finite number per picture, float64 `[n]`.

    Raises:
        InputError: anything else; fewer than `least`.
    """
    array = _as_array(name, scores)
    if array.ndim != 1:
        raise InputError(name, "one score per picture", f"shape {list(array.shape)}")
    return as_features(name, array[:, None], least)[:, 0]


def check_paired(names: tuple[str, str], first: np.ndarray, second: np.ndarray) -> None:
    """Raise an `InputError` unless both have as many rows."""
    if len(first) != len(second):
        wanted = f"{len(first)} pictures, one for each of `{names[0]}`"
        remedy = "Draw the same prompts with the same seeds for both."
        raise InputError(names[1], wanted, str(len(second)), remedy)


def unit(name: str, features: np.ndarray) -> np.ndarray:
    """The rows at length 1.

    Half-precision encoders give lengths between 0.997 and 1.003, and cosines above 1 from them.

    Raises:
        InputError: a row of zeros, which has no direction.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    zero = np.flatnonzero(lengths[:, 0] == 0)
    if len(zero):
        raise InputError(name, "features with a direction", f"only zeros for {_pictures(zero)}")
    return features / lengths


def check_length(name: str, length: float | np.ndarray) -> None:
    """Raise an `InputError` where directions cancel out, so that their mean has none."""
    if np.min(length) < _NOTHING:
        remedy = "Use the pairwise form, or leave out the opposite pictures."
        raise InputError(name, "directions with a mean", "directions that cancel out", remedy)


def _as_array(name: str, features: Features) -> np.ndarray:
    if isinstance(features, torch.Tensor):
        # To the host first: not every device has float64, and numpy has no bfloat16.
        return features.detach().cpu().double().numpy()
    try:
        return np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError):
        got = type(features).__name__
        raise InputError(name, "an array or tensor of real numbers", got) from None


def _check_finite(name: str, array: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        remedy = "Look at these pictures: a black or NaN one comes of an overflow while drawing."
        raise InputError(name, "finite features", f"NaN or infinity for {_pictures(bad)}", remedy)


def _pictures(rows: np.ndarray) -> str:
    named = ", ".join(str(row) for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"picture{'s' if len(rows) > 1 else ''} {named}{more} (counted from 0)"
