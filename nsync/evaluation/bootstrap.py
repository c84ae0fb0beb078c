"""Confidence intervals of scores that lean on pictures and on references at once.

Both are samples: other prompts could have been drawn, other pictures of the style could have been
at hand. A resample takes prompts and references anew, each with replacement; a statistic sees it
as counts, how often each was taken, so that cosines are computed once and only summed anew.

Plain percentile intervals are too narrow for a dozen pictures, and too wide where a resampled
reference counts twice. So the percentiles are taken at the level at which a normal interval of the
resamples' spread is as wide as Student's t with the jackknife's variance: Hesterberg's expanded
percentile interval (arXiv 1411.5279, section 5.3) with Welch's degrees of freedom for two samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..draws import derive_seed

DRAWS = 10_000
LEVEL = 0.95

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From counts of rows `[k, m]` and of columns `[k, n]` to values `[k]`."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A value and the interval that covers the true one in `level` of all studies.

    Attributes:
        value: what was measured.
        low: lower end.
        high: upper end.
        level: 0..1.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL


def interval(
    statistic: Statistic, rows: int, columns: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The percentile interval of a statistic of `rows` pictures and `columns` references.

    Args:
        statistic: its value for several resamples at once, each given as counts; indifferent to
            their scale, and defined where at least two different columns were taken.
        rows: pictures, at least 5.
        columns: references, at least 5; or 0, and only the pictures are resampled.
        draws: resamples.
        seed: of the resamples.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    of_columns = _counts(rng, draws, columns)
    if columns:
        of_columns = of_columns[(of_columns > 0).sum(axis=1) > 1]
    values = statistic(_counts(rng, len(of_columns), rows), of_columns)
    value = float(statistic(np.ones((1, rows)), np.ones((1, columns)))[0])
    tail = _tail(values, *_variances(statistic, rows, columns), rows, columns)
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def weighted_mean(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The mean of `values [m, n]` for counts `[k, m]` and `[k, n]`: `[k]`."""
    total = ((rows @ values) * columns).sum(axis=1)
    return total / (rows.sum(axis=1) * columns.sum(axis=1))


def pair_mean(gram: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over pairs of different pictures of `gram [n, n]`, for counts `[k, n]`: `[k]`.

    A picture that was taken twice is no pair: it is as near to itself as can be, and would raise
    the mean of every resample above that of the set.
    """
    apart = gram - np.diag(np.diag(gram))
    total = ((counts @ apart) * counts).sum(axis=1)
    return total / (counts.sum(axis=1) ** 2 - np.square(counts).sum(axis=1))


def _counts(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    if n == 0:
        return np.ones((draws, 0))
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def _variances(statistic: Statistic, rows: int, columns: int) -> tuple[float, float]:
    """The statistic's variance for the draw of rows, and of columns, by the jackknife."""
    all_rows, all_columns = np.ones((rows, rows)), np.ones((columns, columns))
    of_rows = statistic(all_rows - np.eye(rows), np.ones((rows, columns)))
    variance = (rows - 1) * float(np.var(of_rows))
    if columns == 0:
        return variance, 0.0
    of_columns = statistic(np.ones((columns, rows)), all_columns - np.eye(columns))
    return variance, (columns - 1) * float(np.var(of_columns))


def _tail(values: np.ndarray, of_rows: float, of_columns: float, rows: int, columns: int) -> float:
    """What to leave out at either end: see the top of the page.

    The spread is half the distance of the inner 68 %, which the far resamples of a ratio leave be.
    """
    inner = np.quantile(values, [_NORMAL.cdf(-1), _NORMAL.cdf(1)])
    spread, total = float(inner[1] - inner[0]) / 2, of_rows + of_columns
    if total == 0 or spread == 0:
        return (1 - LEVEL) / 2
    within = of_rows**2 / (rows - 1) + (of_columns**2 / (columns - 1) if columns else 0.0)
    return _NORMAL.cdf(-student(total**2 / within) * total**0.5 / spread)


def student(freedom: float) -> float:
    """The 97.5 % point of Student's t, by its expansion in 1 / degrees of freedom.

    Abramowitz and Stegun, 26.7.5; off by less than 0.3 % from 4 degrees up.
    """
    z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
